#include "model/testing/tiny_lora.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "base/file.h"
#include "base/json.h"
#include "base/prng.h"
#include "model/lora_config.h"
#include "model/testing/gguf_writer.h"
#include "model/testing/tiny_plan.h"
#include "tensor/panels.h"

namespace baton::model::testing {
namespace {

std::vector<std::string> split(const std::string& text, char by) {
  std::vector<std::string> out;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(by, at), text.size());
    out.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

bool set(TinyLora& lora, const std::string& key, const std::string& value) {
  if (key == "rank") return lora.rank = std::atoi(value.c_str()), true;
  if (key == "alpha") return lora.alpha = std::atof(value.c_str()), true;
  if (key == "rslora") return lora.rslora = value == "1", true;
  if (key == "seed") return lora.seed = static_cast<uint64_t>(std::atoll(value.c_str())), true;
  if (key == "experts") return lora.experts = value, value == "each" || value == "stacked";
  if (key == "targets") return lora.targets = split(value, '+'), true;
  if (key == "dtype") {
    for (const Dtype d : {Dtype::kF32, Dtype::kF16, Dtype::kBf16})
      if (dtype_name(d) == value) return lora.dtype = d, true;
  }
  if (key != "ranks") return false;
  for (const std::string& item : split(value, '+')) {
    const std::vector<std::string> parts = split(item, ':');
    if (parts.size() != 2) return false;
    lora.ranks.emplace_back(parts[0], std::atoi(parts[1].c_str()));
  }
  return true;
}

struct Adapted {
  std::string module;  // "model.layers.0.self_attn.q_proj"
  int64_t rows, cols;
  int32_t rank;
  int32_t stacked = 1;  // experts in one tensor
};

std::vector<Adapted> adapted(const TinyLora& lora, const TinySpec& spec) {
  std::vector<Adapted> out;
  for (const Plan& p : plan(spec)) {
    if (p.vector || !p.hf.starts_with("model.layers.") || !p.hf.ends_with("_proj.weight")) continue;
    if (p.hf.find(".experts.") != std::string::npos && lora.experts != "each") continue;
    const std::string module = p.hf.substr(0, p.hf.size() - std::string_view(".weight").size());
    const auto fits = [&](const auto& name) { return names_module(name, module); };
    if (!lora.targets.empty() && std::ranges::none_of(lora.targets, fits)) continue;
    const auto pattern = std::ranges::find_if(lora.ranks, [&](const auto& r) { return fits(r.first); });
    out.push_back({module, p.rows, p.cols, pattern == lora.ranks.end() ? lora.rank : pattern->second});
  }
  for (int i = 0; i < spec.layers && lora.experts == "stacked"; ++i) {
    if (!spec.has_experts(i)) continue;
    const std::string at = cat("model.layers.", i, ".mlp.experts");
    out.push_back({at + ".base_layer", 2 * spec.ffn, spec.hidden, lora.rank, spec.experts});
    out.push_back({at, spec.hidden, spec.ffn, lora.rank, spec.experts});
  }
  return out;
}

std::string random_values(uint64_t seed, const std::string& name, int64_t n, double spread, Dtype dtype) {
  uint64_t hash = seed;
  for (const char c : name) hash = mix64(hash ^ static_cast<unsigned char>(c));
  Prng prng(hash);
  std::string out;
  for (int64_t i = 0; i < n; i++) {
    const auto v = static_cast<float>((2 * prng.uniform() - 1) * std::sqrt(3.0) * spread);
    if (dtype == Dtype::kF32)
      GgufWriter::append(out, v);
    else
      GgufWriter::append(out, dtype == Dtype::kF16 ? tensor::f32_to_f16(v) : tensor::f32_to_bf16(v));
  }
  return out;
}

}  // namespace

Result<TinyLora> parse_tiny_lora(const std::vector<std::string>& fields) {
  TinyLora lora;
  for (const auto& field : fields) {
    const size_t eq = field.find('=');
    if (eq == std::string::npos || !set(lora, field.substr(0, eq), field.substr(eq + 1)))
      return fail(Code::kInvalidArgument, "tiny adapter: not understood: ", field);
  }
  return lora;
}

std::string tiny_lora_config(const TinyLora& lora, const TinySpec& spec) {
  std::vector<std::string> targets = lora.targets;
  for (const Adapted& a : adapted(lora, spec)) {
    std::string last = a.module.substr(a.module.rfind('.') + 1);
    if (lora.targets.empty() && a.stacked == 1 && std::ranges::find(targets, last) == targets.end()) targets.push_back(std::move(last));
  }
  JsonWriter w;
  w.object().field("peft_type", "LORA").field("task_type", "CAUSAL_LM").field("r", lora.rank).field("lora_alpha", lora.alpha);
  w.field("use_rslora", lora.rslora).field("bias", "none").field("lora_dropout", lora.experts.empty() ? 0.1 : 0.0).field("inference_mode", true);
  w.field_null("modules_to_save").field("fan_in_fan_out", false).key("target_modules").array();
  for (const std::string& t : targets) w.value(t);
  w.end();
  if (lora.experts == "stacked") w.key("target_parameters").array().value("mlp.experts.gate_up_proj").value("mlp.experts.down_proj").end();
  w.key("rank_pattern").object();
  for (const auto& [name, rank] : lora.ranks) w.field(name, rank);
  w.end().end();
  std::string out = w.take();
  return out.insert(out.size() - 1, lora.more);
}

std::string tiny_lora_tensors(const TinyLora& lora, const TinySpec& spec) {
  std::string data;
  JsonWriter header;
  header.object();
  const auto tensor = [&](const std::string& name, int64_t rows, int64_t cols, double spread) {
    const size_t begin = data.size();
    data += random_values(lora.seed, name, rows * cols, spread, lora.dtype);
    header.key(name).object().field("dtype", dtype_name(lora.dtype)).key("shape").array().value(rows).value(cols).end();
    header.key("data_offsets").array().value(begin).value(data.size()).end().end();
  };
  for (const Adapted& a : adapted(lora, spec)) {
    const double r = a.rank, scale = lora.alpha / (lora.rslora ? std::sqrt(r) : r), half = 0.5 / std::sqrt(r) / scale;
    tensor(cat("base_model.model.", a.module, ".lora_A.weight"), a.rank * a.stacked, a.cols, 1 / std::sqrt(static_cast<double>(a.cols)));
    tensor(cat("base_model.model.", a.module, ".lora_B.weight"), a.rows, a.rank * a.stacked, half);
  }
  header.end();
  std::string out;
  GgufWriter::append(out, static_cast<uint64_t>(header.text().size()));
  return out + header.text() + data;
}

Result<> write_tiny_lora(const std::string& directory, const TinyLora& lora, const TinySpec& spec) {
  std::error_code failed;
  std::filesystem::create_directories(directory, failed);
  if (failed) return fail(Code::kUnavailable, directory, ": ", failed.message());
  BATON_OK(write_file(directory + "/adapter_config.json", tiny_lora_config(lora, spec)));
  return write_file(directory + "/adapter_model.safetensors", tiny_lora_tensors(lora, spec));
}

}  // namespace baton::model::testing
