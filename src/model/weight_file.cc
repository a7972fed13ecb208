#include <filesystem>

#include "base/file.h"
#include "model/config.h"
#include "model/limits.h"
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
  void release(std::span<const std::byte> bytes) const override {
    for (const MappedFile& file : files_) file.release(bytes);
  }

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

// "" if there is no such file; any other trouble is an error.
Result<std::string> read_optional(const std::string& path, size_t bytes_max) {
  auto text = read_file(path, bytes_max);
  if (!text && text.error().code == Code::kNotFound) return std::string();
  return text;
}

Result<std::unique_ptr<WeightFile>> open_hf(const std::string& directory) {
  HfFiles texts;
  texts.name = std::filesystem::path(directory).parent_path().filename().string();  // directory ends in '/'
  BATON_TRY(texts.config, read_file(directory + "config.json", kConfigBytesMax));
  BATON_TRY(texts.generation_config, read_optional(directory + "generation_config.json", kConfigBytesMax));
  BATON_TRY(texts.tokenizer, read_optional(directory + "tokenizer.json", kTokenizerBytesMax));
  BATON_TRY(texts.tokenizer_config, read_optional(directory + "tokenizer_config.json", kTokenizerBytesMax));
  BATON_TRY(texts.chat_template, read_optional(directory + "chat_template.jinja", kConfigBytesMax));
  BATON_TRY(texts.index, read_optional(directory + "model.safetensors.index.json", kIndexBytesMax));
  std::vector<std::string> names{"model.safetensors"};
  if (!texts.index.empty()) {
    BATON_TRY(names, shard_names(texts.index));
  }
  std::vector<MappedFile> files;
  for (const auto& name : names) {
    auto file = MappedFile::open(directory + name);
    if (!file && file.error().code == Code::kNotFound) {
      return fail(Code::kNotFound, directory, name,
                  " is missing; the download is incomplete, or the weights are no safetensors files",
                  " (convert them with transformers' save_pretrained)");
    }
    if (!file) return std::unexpected(std::move(file).error());
    texts.shards.push_back({name, file->bytes()});
    files.push_back(*std::move(file));
  }
  auto data = read_hf(std::move(texts));
  if (!data) return within(directory, std::move(data).error());
  return std::make_unique<MappedWeights>(std::move(files), *std::move(data));
}

Result<TokenizerFiles> open_hf_tokenizer(const std::string& directory, const std::string& tokenizer_json) {
  TokenizerFiles out;
  BATON_TRY(out.tokenizer_json, read_file(tokenizer_json, kTokenizerBytesMax));
  BATON_TRY(out.tokenizer_config_json, read_optional(directory + "tokenizer_config.json", kTokenizerBytesMax));
  BATON_TRY(out.chat_template, read_optional(directory + "chat_template.jinja", kConfigBytesMax));
  if (out.chat_template.empty()) {
    BATON_TRY(out.chat_template, chat_template_of(out.tokenizer_config_json));
  }
  return out;
}

// The one GGUF file of a directory without config.json.
Result<std::string> only_gguf(const std::string& directory) {
  std::vector<std::string> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    if (entry.path().extension() == ".gguf") found.push_back(entry.path().string());
  }
  if (found.size() == 1) return found[0];
  if (found.empty()) return fail(Code::kNotFound, directory, ": holds neither config.json nor a .gguf file");
  return fail(Code::kInvalidArgument, directory, ": holds ", found.size(), " .gguf files; name one of them, for example ",
              found[0]);
}

}  // namespace

Result<std::unique_ptr<WeightFile>> WeightFile::open(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    const std::string directory = path.ends_with('/') ? path : path + "/";
    if (std::filesystem::exists(directory + "config.json", error)) return open_hf(directory);
    BATON_TRY(const std::string file, only_gguf(directory));
    return open_gguf(file);
  }
  if (path.ends_with(".safetensors")) {
    return fail(Code::kInvalidArgument, path, ": give the directory that holds it together with config.json and tokenizer.json");
  }
  return open_gguf(path);
}

Result<TokenizerFiles> read_tokenizer_files(const std::string& path) {
  std::error_code error;
  std::string file = path;
  if (std::filesystem::is_directory(path, error)) {
    const std::string directory = path.ends_with('/') ? path : path + "/";
    if (std::filesystem::exists(directory + "tokenizer.json", error)) return open_hf_tokenizer(directory, directory + "tokenizer.json");
    BATON_TRY(file, only_gguf(directory));
  }
  if (file.ends_with(".json")) {
    const std::string parent = std::filesystem::path(file).parent_path().string();
    return open_hf_tokenizer(parent.empty() ? "./" : parent + "/", file);
  }
  BATON_TRY(const MappedFile mapped, MappedFile::open(file));
  auto out = read_gguf_tokenizer(mapped.bytes());
  if (!out) return within(file, std::move(out).error());
  return out;
}

}  // namespace baton::model
