#include "model/lora.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <span>

#include "base/file.h"
#include "base/sha256.h"
#include "model/families/family.h"
#include "model/limits.h"
#include "model/lora_config.h"
#include "model/mapped_file.h"
#include "model/safetensors.h"
#include "tensor/ops.h"

namespace baton::model {
namespace {

constexpr LoraTarget kAll[] = {LoraTarget::kQ,    LoraTarget::kK,  LoraTarget::kV,   LoraTarget::kO,
                               LoraTarget::kGate, LoraTarget::kUp, LoraTarget::kDown};
constexpr std::span<const LoraTarget> parts(size_t first, size_t n) { return std::span(kAll).subspan(first, n); }

// A module of the base model, and the matrices that its rows are, one after the other.
struct Module {
  std::string_view name;
  std::span<const LoraTarget> targets;
};
constexpr Module kModules[] = {{"self_attn.q_proj", parts(0, 1)},   {"self_attn.k_proj", parts(1, 1)}, {"self_attn.v_proj", parts(2, 1)},
                               {"self_attn.o_proj", parts(3, 1)},   {"mlp.gate_proj", parts(4, 1)},    {"mlp.up_proj", parts(5, 1)},
                               {"mlp.down_proj", parts(6, 1)},      {"self_attn.qkv_proj", parts(0, 3)}, {"mlp.gate_up_proj", parts(4, 2)}};

int64_t outputs(const ModelConfig& c, LoraTarget t) {
  switch (t) {
    case LoraTarget::kQ: return int64_t{c.heads} * c.head_dim;
    case LoraTarget::kK:
    case LoraTarget::kV: return int64_t{c.kv_heads} * c.head_dim;
    case LoraTarget::kGate:
    case LoraTarget::kUp: return c.ffn;
    case LoraTarget::kO:
    case LoraTarget::kDown: break;
  }
  return c.hidden;
}

int64_t inputs(const ModelConfig& c, LoraTarget t) {
  return t == LoraTarget::kO ? int64_t{c.heads} * c.head_dim : t == LoraTarget::kDown ? c.ffn : c.hidden;
}

struct Place {
  int32_t layer = 0;
  size_t module = 0;
  auto operator<=>(const Place&) const = default;
  std::string name() const { return cat("model.layers.", layer, ".", kModules[module].name); }
};
struct Pair {
  const Safetensor *a = nullptr, *b = nullptr;
};

Result<tensor::Matrix> matrix(const Safetensor& t, int64_t rows, int64_t cols) {
  if (!t.dtype) return fail(Code::kUnimplemented, "tensor ", t.name, " is ", t.dtype_text, "; F32, F16 and BF16 are supported");
  if (t.shape.size() != 2 || t.shape[0] != rows || t.shape[1] != cols) {
    std::string shape;
    for (const int64_t n : t.shape) shape += cat(shape.empty() ? "" : " x ", n);
    return fail(Code::kInvalidArgument, "tensor ", t.name, " is ", shape, "; the base model and the adapter's configuration say ", rows,
                " x ", cols);
  }
  tensor::Matrix m{.format = format_of(*t.dtype), .rows = rows, .cols = cols, .data = t.bytes.data()};
  std::vector<float> row(static_cast<size_t>(cols));
  for (int64_t r = 0; r < rows; ++r) {
    tensor::decode_row(m, r, row.data());
    if (!std::ranges::all_of(row, [](float f) { return std::isfinite(f); }))
      return fail(Code::kInvalidArgument, "tensor ", t.name, " holds values that are no numbers");
  }
  return m;
}

}  // namespace

struct LoraAdapter::Reader {
  Reader(const ModelConfig& model, const PeftConfig& peft, int32_t most, LoraAdapter& adapter)
      : c(model), family(find_family(model.family)), config(peft), rank_max(most), out(adapter), q_order(rotary_rows(0, c.heads, c, false)),
        k_order(rotary_rows(0, c.kv_heads, c, false)) {
    out.layers_.resize(static_cast<size_t>(c.layers));
  }

  bool fuses(std::string_view module) const {
    return family && std::ranges::any_of(family->hf_layer, [&](const Rename& r) { return r.from == cat(module, ".weight"); });
  }

  // Where a tensor belongs; is_a: it is the A of its pair.
  Result<Place> place(const std::string& name, bool& is_a) const {
    const auto unknown = [&] { return fail(Code::kUnimplemented, name, " is unsupported LoRA weight"); };
    constexpr std::string_view kBase = "base_model.model.", kLayers = "model.layers.";
    std::string_view whole = name;
    if (whole.starts_with(kBase)) whole.remove_prefix(kBase.size());
    const std::string text = family ? text_name(whole, *family) : std::string(whole);
    std::string_view rest = text;
    if (!rest.starts_with(kLayers)) return unknown();
    rest.remove_prefix(kLayers.size());
    Place at;
    const auto [end, bad] = std::from_chars(rest.data(), rest.data() + rest.size(), at.layer);
    if (bad != std::errc() || end == rest.data() + rest.size() || *end != '.' || at.layer < 0) return unknown();
    rest.remove_prefix(static_cast<size_t>(end - rest.data()) + 1);
    is_a = rest.ends_with(".lora_A.weight");
    if (!is_a && !rest.ends_with(".lora_B.weight")) return unknown();
    rest.remove_suffix(std::string_view(".lora_A.weight").size());
    if (c.experts > 0 && rest.starts_with("mlp."))
      return fail(Code::kUnimplemented, "tensor ", name, ": of a mixture of experts only attention can be adapted");
    const auto* module = std::ranges::find(kModules, rest, &Module::name);
    if (module == std::end(kModules) || (module->targets.size() > 1 && !fuses(rest))) return unknown();
    if (at.layer >= c.layers) return fail(Code::kInvalidArgument, "tensor ", name, ": the base model has ", c.layers, " layers");
    at.module = static_cast<size_t>(module - kModules);
    return at;
  }

  Result<> take(std::span<const Safetensor> tensors) {
    for (const Safetensor& t : tensors) {
      bool is_a = false;
      BATON_TRY(const Place at, place(t.name, is_a));
      Pair& pair = pairs[at];
      const Safetensor*& slot = is_a ? pair.a : pair.b;
      if (slot) return fail(Code::kInvalidArgument, "tensors ", slot->name, " and ", t.name, " are of one matrix");
      slot = &t;
    }
    if (pairs.empty()) return fail(Code::kInvalidArgument, "holds no LoRA weights");
    for (const auto& [at, pair] : pairs) {
      if (!pair.a || !pair.b)
        return fail(Code::kInvalidArgument, "tensor ", (pair.a ? pair.a : pair.b)->name, " has no lora_", pair.a ? "B" : "A", " beside it");
    }
    return {};
  }

  // Every layer has what target_modules promises: a file cut short would answer otherwise than it was trained to.
  Result<> check_targets() const {
    for (const std::string& target : config.targets) {
      int32_t layers = 0, last = -1;
      for (const auto& [at, pair] : pairs) {
        if (at.layer == last || !names_module(target, at.name())) continue;
        last = at.layer;
        ++layers;
      }
      const int32_t wanted = config.every_layer && target.find("layers.") == std::string::npos ? c.layers : 1;
      if (layers < wanted)
        return fail(Code::kInvalidArgument, "\"target_modules\" of adapter_config.json names ", target, ", for which ", layers, " of ", wanted,
                    " layers have tensors");
    }
    return {};
  }

  void list(const tensor::Matrix& from, std::span<const int32_t> rows, tensor::Panels& to) {
    to = tensor::panels_for(from);
    out.bytes_ += Arena::room(to.bytes());
    packings.push_back({from, rows, &to});
  }

  Result<> add(const Place& at, const Pair& pair) {
    const Module& module = kModules[at.module];
    const int32_t rank = config.rank_of(at.name());
    if (rank > rank_max) return fail(Code::kInvalidArgument, "LoRA rank ", rank, " is greater than max_lora_rank ", rank_max, ".");
    int64_t rows = 0;
    for (const LoraTarget t : module.targets) rows += outputs(c, t);
    BATON_TRY(const tensor::Matrix a, matrix(*pair.a, rank, inputs(c, module.targets[0])));
    BATON_TRY(const tensor::Matrix b, matrix(*pair.b, rows, rank));
    const double scale = config.scale_of(at.name());
    hash.update(cat(at.name(), " ", pair.a->dtype_text, " ", pair.b->dtype_text, " ", rank, " ", scale, "\n"));
    for (const Safetensor* t : {pair.a, pair.b}) hash.update({reinterpret_cast<const uint8_t*>(t->bytes.data()), t->bytes.size()});
    out.rank_ = std::max(out.rank_, rank);
    const tensor::Panels* shared = nullptr;
    rows = 0;
    for (const LoraTarget t : module.targets) {
      LoraMatrix& m = out.layers_[static_cast<size_t>(at.layer)][static_cast<size_t>(t)];
      if (m.b.rows > 0) return fail(Code::kInvalidArgument, "tensor ", pair.a->name, ": its matrix is adapted twice");
      m.scale = static_cast<float>(scale);
      if (shared)
        copies.emplace_back(shared, &m.a);
      else
        list(a, {}, m.a);
      shared = shared ? shared : &m.a;
      tensor::Matrix part = b;
      part.rows = outputs(c, t);
      part.data = b.row(rows);
      rows += part.rows;
      list(part, t == LoraTarget::kQ ? std::span(q_order) : t == LoraTarget::kK ? std::span(k_order) : std::span<const int32_t>(), m.b);
    }
    out.input_forms_ |= tensor::form_for(shared->kind);
    return {};
  }

  Result<> pack() {
    BATON_TRY(out.arena_, Arena::make(out.bytes_));
    std::byte* at = out.arena_.data();
    for (const Packing& p : packings) {
      p.to->data = at;
      tensor::pack_panels(p.from, p.rows, *p.to, 0, p.to->panels(), at);
      at += Arena::room(p.to->bytes());
    }
    for (const auto& [from, to] : copies) *to = *from;
    out.digest_ = hex(hash.finish());
    return {};
  }

  struct Packing {
    tensor::Matrix from;
    std::span<const int32_t> rows;
    tensor::Panels* to;
  };
  const ModelConfig& c;
  const Family* family;
  const PeftConfig& config;
  int32_t rank_max;
  LoraAdapter& out;
  const std::vector<int32_t> q_order, k_order;
  std::map<Place, Pair> pairs;
  std::vector<Packing> packings;
  std::vector<std::pair<const tensor::Panels*, tensor::Panels*>> copies;
  Sha256 hash;
};

Result<std::shared_ptr<const LoraAdapter>> LoraAdapter::read(std::string_view config_json, std::span<const std::byte> safetensors,
                                                             const ModelConfig& model, int32_t rank_max) {
  BATON_TRY(const PeftConfig config, parse_peft_config(config_json));
  constexpr std::string_view kFile = "adapter_model.safetensors";
  auto tensors = parse_safetensors(safetensors);
  if (!tensors) return within(kFile, std::move(tensors).error());
  auto adapter = std::make_shared<LoraAdapter>();
  Reader reader(model, config, rank_max, *adapter);
  if (auto taken = reader.take(*tensors); !taken) return within(kFile, std::move(taken).error());
  BATON_OK(reader.check_targets());
  for (const auto& [at, pair] : reader.pairs) BATON_OK(reader.add(at, pair));
  BATON_OK(reader.pack());
  return adapter;
}

Result<std::shared_ptr<const LoraAdapter>> LoraAdapter::load(const std::string& directory, const ModelConfig& model, int32_t rank_max) {
  auto config = read_file(directory + "/adapter_config.json", kConfigBytesMax);
  if (!config && config.error().code == Code::kNotFound) return fail(Code::kNotFound, "No adapter found for ", directory);
  if (!config) return std::unexpected(config.error());
  auto file = MappedFile::open(directory + "/adapter_model.safetensors");
  if (!file && file.error().code == Code::kNotFound)
    return fail(Code::kInvalidArgument, directory, " doesn't contain adapter_model.safetensors (a .bin or .pt file is not read: it may hold code)");
  if (!file) return std::unexpected(file.error());
  return read(*config, file->bytes(), model, rank_max);
}

}  // namespace baton::model
