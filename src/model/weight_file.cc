#include "model/config.h"

#include "model/mapped_file.h"
#include "model/weight_data.h"

namespace baton::model {
namespace {

class MappedWeights final : public WeightFile {
 public:
  MappedWeights(std::vector<MappedFile> files, WeightData data) : files_(std::move(files)), data_(std::move(data)) {}

  const ModelConfig& config() const override { return data_.config; }
  const TensorRef* find(std::string_view name) const override {
    const auto it = data_.tensors.find(name);
    return it == data_.tensors.end() ? nullptr : &it->second;
  }
  std::vector<std::string_view> names() const override {
    std::vector<std::string_view> out;
    for (const auto& [name, tensor] : data_.tensors) out.push_back(name);
    return out;
  }
  bool rope_interleaved() const override { return data_.rope_interleaved; }
  std::string hf_tokenizer_json() const override { return data_.tokenizer_json; }
  std::string hf_tokenizer_config_json() const override { return data_.tokenizer_config_json; }
  const Vocab* gguf_vocab() const override { return data_.vocab ? &*data_.vocab : nullptr; }
  std::string chat_template() const override { return data_.chat_template; }

 private:
  std::vector<MappedFile> files_;  // data_ views their bytes
  WeightData data_;
};

Result<std::unique_ptr<WeightFile>> open_gguf(const std::string& path) {
  std::vector<MappedFile> files;
  BATON_TRY(MappedFile file, MappedFile::open(path));
  files.push_back(std::move(file));
  auto data = read_gguf(files[0].bytes());
  if (!data) return within(path, std::move(data).error());
  return std::make_unique<MappedWeights>(std::move(files), *std::move(data));
}

}  // namespace

Result<std::unique_ptr<WeightFile>> WeightFile::open(const std::string& path) { return open_gguf(path); }

}  // namespace baton::model
