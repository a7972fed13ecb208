#include "model/model.h"

#include "model/transformer.h"

namespace baton::model {

Result<std::unique_ptr<Model>> Model::load(const std::string& path, const LoadOptions& options) {
  BATON_TRY(std::unique_ptr<WeightFile> file, WeightFile::open(path));
  return Transformer::make(std::move(file), options);
}

}  // namespace baton::model
