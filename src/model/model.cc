#include "model/model.h"

#include "model/transformer.h"

namespace baton::model {

Result<std::unique_ptr<Model>> Model::load(const std::string& path, const LoadOptions& options) {
  BATON_TRY(std::unique_ptr<WeightFile> file, WeightFile::open(path));
  return Transformer::make(std::move(file), options);
}

Result<> Model::keep_weights(bool) { return fail(Code::kUnimplemented, backend(), ": this model keeps its weights"); }

Result<std::shared_ptr<const LoraAdapter>> Model::load_lora(const std::string&, int32_t, int32_t) const {
  return fail(Code::kUnimplemented, backend(), ": this model takes no LoRA adapters");
}

}  // namespace baton::model
