#include "model/lora.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <tuple>

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

// A module of the base model, and the matrices that its rows are, one after the other. A stack is a parameter with one matrix of all
// experts: its A has the experts' ranks one expert after the other, [expert][rank][input], its B the experts innermost,
// [output][rank][expert]; outputs of gate and up follow each other, or alternate, as they do in the family's files.
enum class Of : uint8_t { kLayer, kExpert, kStack };
struct Module {
  std::string_view name;
  std::span<const LoraTarget> targets;
  Of of = Of::kLayer;
};
constexpr Module kModules[] = {{"self_attn.q_proj", parts(0, 1)},
                               {"self_attn.k_proj", parts(1, 1)},
                               {"self_attn.v_proj", parts(2, 1)},
                               {"self_attn.o_proj", parts(3, 1)},
                               {"mlp.gate_proj", parts(4, 1)},
                               {"mlp.up_proj", parts(5, 1)},
                               {"mlp.down_proj", parts(6, 1)},
                               {"self_attn.qkv_proj", parts(0, 3)},
                               {"mlp.gate_up_proj", parts(4, 2)},
                               {"gate_proj", parts(4, 1), Of::kExpert},
                               {"up_proj", parts(5, 1), Of::kExpert},
                               {"down_proj", parts(6, 1), Of::kExpert},
                               {"gate_up_proj", parts(4, 2), Of::kStack},
                               {"down_proj", parts(6, 1), Of::kStack}};
constexpr std::string_view kExperts = "mlp.experts";

const Module* find_module(Of of, std::string_view name) {
  const auto* found = std::ranges::find_if(kModules, [&](const Module& m) { return m.of == of && m.name == name; });
  return found == std::end(kModules) ? nullptr : found;
}

struct Place {
  int32_t layer = 0, expert = -1;  // -1: no one expert's
  size_t module = 0;
  auto operator<=>(const Place&) const = default;
  const Module& of() const { return kModules[module]; }
  std::string name() const {
    const std::string_view last = of().name;
    if (of().of == Of::kLayer) return cat("model.layers.", layer, ".", last);
    return expert < 0 ? cat("model.layers.", layer, ".", kExperts, ".", last) : cat("model.layers.", layer, ".", kExperts, ".", expert, ".", last);
  }
};

int32_t ffn_at(const ModelConfig& c, const Place& at) { return at.of().of == Of::kLayer ? c.ffn_of(at.layer) : c.ffn; }

int64_t outputs(const ModelConfig& c, const Place& at, LoraTarget t) {
  switch (t) {
    case LoraTarget::kQ: return int64_t{c.heads} * c.head_dim;
    case LoraTarget::kK:
    case LoraTarget::kV: return int64_t{c.kv_heads} * c.head_dim;
    case LoraTarget::kGate:
    case LoraTarget::kUp: return ffn_at(c, at);
    case LoraTarget::kO:
    case LoraTarget::kDown: break;
  }
  return c.hidden;
}

int64_t inputs(const ModelConfig& c, const Place& at, LoraTarget t) {
  return t == LoraTarget::kO ? int64_t{c.heads} * c.head_dim : t == LoraTarget::kDown ? ffn_at(c, at) : c.hidden;
}

// A number and a dot, taken off; -1: there is none.
int32_t take_index(std::string_view& text) {
  int32_t n = -1;
  const auto [end, bad] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (bad != std::errc() || end == text.data() + text.size() || *end != '.' || n < 0) return -1;
  text.remove_prefix(static_cast<size_t>(end - text.data()) + 1);
  return n;
}
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
  Reader(const ModelConfig& model, const PeftConfig& peft, int32_t most, const RankShard& rank, LoraAdapter& adapter)
      : c(model),
        family(find_family(model.family)),
        config(peft),
        rank_max(most),
        shard(rank.whole() ? RankShard{.heads = c.heads, .kv_heads = c.kv_heads} : rank),
        out(adapter),
        q_order(rotary_rows(shard.head_first, shard.heads, c, false)),
        k_order(rotary_rows(shard.kv_head_first, shard.kv_heads, c, false)),
        v_order(part_rows(shard, shard.kv_head_first * c.head_dim, shard.kv_heads * c.head_dim)),
        ffn_order(part_rows(shard, shard.columns(c.ffn).first, shard.columns(c.ffn).n)),
        dense_order(part_rows(shard, shard.columns(c.dense_ffn).first, shard.columns(c.dense_ffn).n)) {
    out.layers_.resize(static_cast<size_t>(c.layers));
    out.experts_.resize(static_cast<size_t>(c.layers));
  }

  // Which rows of B are this rank's, in packed order; empty: all, as they lie.
  std::span<const int32_t> rows_of(const Place& at, LoraTarget t) const {
    switch (t) {
      case LoraTarget::kQ: return q_order;
      case LoraTarget::kK: return k_order;
      case LoraTarget::kV: return v_order;
      case LoraTarget::kGate:
      case LoraTarget::kUp: return ffn_at(c, at) == c.ffn ? ffn_order : dense_order;
      case LoraTarget::kO:
      case LoraTarget::kDown: break;
    }
    return {};
  }

  // Which columns of A are: {first, how many}; none: all.
  std::pair<int64_t, int64_t> columns_of(const Place& at, LoraTarget t) const {
    if (shard.whole()) return {0, 0};
    if (t == LoraTarget::kO) return {int64_t{shard.head_first} * c.head_dim, int64_t{shard.heads} * c.head_dim};
    const RankShard::Columns ours = shard.columns(ffn_at(c, at));
    return t == LoraTarget::kDown ? std::pair<int64_t, int64_t>(ours.first, ours.n) : std::pair<int64_t, int64_t>(0, 0);
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
    at.layer = take_index(rest);
    if (at.layer < 0) return unknown();
    is_a = rest.ends_with(".lora_A.weight");
    if (!is_a && !rest.ends_with(".lora_B.weight")) return unknown();
    rest.remove_suffix(std::string_view(".lora_A.weight").size());
    if (at.layer >= c.layers) return fail(Code::kInvalidArgument, "tensor ", name, ": the base model has ", c.layers, " layers");
    const Module* module = nullptr;
    if (rest.starts_with(kExperts) && c.sparse(at.layer)) {
      rest.remove_prefix(kExperts.size());
      module = in_experts(rest, at);
      if (at.expert >= c.experts) return fail(Code::kInvalidArgument, "tensor ", name, ": the base model has ", c.experts, " experts");
    } else {
      module = find_module(Of::kLayer, rest);
      if (module && rest.starts_with("mlp.") && c.sparse(at.layer))
        return fail(Code::kUnimplemented, "tensor ", name, ": layer ", at.layer, " is a mixture of experts, which has no such module");
      if (module && module->targets.size() > 1 && !fuses(rest)) module = nullptr;
    }
    if (!module) return unknown();
    at.module = static_cast<size_t>(module - kModules);
    return at;
  }

  bool targets_stack(const Place& at, std::string_view name) const {
    const std::string whole = cat("model.layers.", at.layer, ".", kExperts, ".", name);
    return std::ranges::any_of(config.parameters, [&](const std::string& p) { return names_module(p, whole); });
  }

  // What stands behind "mlp.experts": ".7.gate_proj", or nothing or ".base_layer" for a stack. PEFT wraps the stacks that
  // target_parameters names in the order in which the module has them, gate_up_proj first: the last is outside.
  const Module* in_experts(std::string_view rest, Place& at) const {
    const bool gate_up = targets_stack(at, "gate_up_proj"), down = targets_stack(at, "down_proj");
    if (rest.empty()) return down || gate_up ? find_module(Of::kStack, down ? "down_proj" : "gate_up_proj") : nullptr;
    if (rest == ".base_layer") return down && gate_up ? find_module(Of::kStack, "gate_up_proj") : nullptr;
    if (!rest.starts_with('.')) return nullptr;
    rest.remove_prefix(1);
    at.expert = take_index(rest);
    return at.expert < 0 ? nullptr : find_module(Of::kExpert, rest);
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

  // `wanted` layers have what a target promises, unless it names layers itself.
  Result<> check_target(std::string_view key, const std::string& target, int32_t wanted) const {
    int32_t layers = 0, last = -1;
    for (const auto& [at, pair] : pairs) {
      if (at.layer == last || !names_module(target, at.name())) continue;
      last = at.layer;
      ++layers;
    }
    if (!config.every_layer || target.find("layers.") != std::string::npos) wanted = 1;
    if (layers >= wanted) return {};
    return fail(Code::kInvalidArgument, "\"", key, "\" of adapter_config.json names ", target, ", for which ", layers, " of ", wanted,
                " layers have tensors");
  }

  // Every layer has what the configuration promises, and every expert of it: a file cut short would answer otherwise than it was trained
  // to.
  Result<> check_targets() const {
    int32_t mixtures = 0;
    for (int i = 0; i < c.layers; ++i) mixtures += c.sparse(i) ? 1 : 0;
    for (const std::string& target : config.targets) BATON_OK(check_target("target_modules", target, c.layers));
    for (const std::string& target : config.parameters) BATON_OK(check_target("target_parameters", target, mixtures));
    std::map<std::pair<int32_t, size_t>, int32_t> experts;  // of a layer's module
    for (const auto& [at, pair] : pairs)
      if (at.expert >= 0) ++experts[{at.layer, at.module}];
    const bool named = std::ranges::any_of(config.targets, [](const std::string& t) { return t.find("experts.") != std::string::npos; });
    for (const auto& [of, n] : experts) {
      if (n < c.experts && !named && !config.targets.empty())
        return fail(Code::kInvalidArgument, "layer ", of.first, " has tensors for ", kModules[of.second].name, " of ", n, " of ", c.experts, " experts");
    }
    return {};
  }

  // Gate and up of a stack alternate where the family's files hold stacks themselves (expert_stacks.h).
  bool alternates() const {
    return family && std::ranges::any_of(family->hf_layer, [](const Rename& r) { return r.from == cat(kExperts, ".gate_up_proj"); });
  }

  LoraMatrix& place_of(const Place& at, int32_t expert, LoraTarget t) {
    const auto layer = static_cast<size_t>(at.layer), target = static_cast<size_t>(t);
    if (expert < 0) return out.layers_[layer][target];
    auto& experts = out.experts_[layer];
    if (experts.empty()) experts.resize(static_cast<size_t>(c.experts));  // once: packings point into it
    return experts[static_cast<size_t>(expert)][target - static_cast<size_t>(LoraTarget::kGate)];
  }

  void list(const tensor::Matrix& from, std::span<const int32_t> rows, std::pair<int64_t, int64_t> columns, tensor::Panels& to) {
    to = tensor::panels_for(from);
    if (!rows.empty()) to.rows = std::ssize(rows);
    if (columns.second > 0) to.cols = columns.second;
    out.bytes_ += Arena::room(to.bytes());
    packings.push_back({from, rows, columns.first / tensor::kRecordInputs, &to});
  }

  Result<> add(const Place& at, const Pair& pair) {
    const Module& module = at.of();
    const int32_t rank = config.rank_of(at.name());
    if (rank > rank_max) return fail(Code::kInvalidArgument, "LoRA rank ", rank, " is greater than max_lora_rank ", rank_max, ".");
    const int32_t experts = module.of == Of::kStack ? c.experts : 1;
    int64_t rows = 0;
    for (const LoraTarget t : module.targets) rows += outputs(c, at, t);
    BATON_TRY(tensor::Matrix a, matrix(*pair.a, int64_t{rank} * experts, inputs(c, at, module.targets[0])));
    BATON_TRY(tensor::Matrix b, matrix(*pair.b, rows, int64_t{rank} * experts));
    const double scale = config.scale_of(at.name());
    hash.update(cat(at.name(), " ", pair.a->dtype_text, " ", pair.b->dtype_text, " ", rank, " ", scale, "\n"));
    for (const Safetensor* t : {pair.a, pair.b}) hash.update({reinterpret_cast<const uint8_t*>(t->bytes.data()), t->bytes.size()});
    out.rank_ = std::max(out.rank_, rank);
    out.input_forms_ |= tensor::form_for(tensor::panels_for(a).kind);
    a.rows = b.cols = rank;
    if (module.of != Of::kStack) return add_one(at, at.expert, *pair.a, a, b, static_cast<float>(scale));
    b.row_step = int64_t{rank} * experts, b.col_step = experts;
    for (int32_t x = 0; x < experts; ++x) {
      BATON_OK(add_one(at, x, *pair.a, a, b, static_cast<float>(scale)));
      a.data = a.row(rank);
      b.data += tensor::format_block_bytes(b.format);
    }
    return {};
  }

  // One A, and the B of all its matrices.
  Result<> add_one(const Place& at, int32_t expert, const Safetensor& of, const tensor::Matrix& a, const tensor::Matrix& b, float scale) {
    const std::span<const LoraTarget> targets = at.of().targets;
    const bool in_turn = at.of().of == Of::kStack && targets.size() > 1 && alternates();
    const tensor::Panels* shared = nullptr;
    int64_t row = 0;  // of the next matrix, in B
    for (size_t i = 0; i < targets.size(); ++i) {
      const LoraTarget t = targets[i];
      if (!adapted.emplace(at.layer, expert, t).second) return fail(Code::kInvalidArgument, "tensor ", of.name, ": its matrix is adapted twice");
      tensor::Matrix part = b;
      part.rows = outputs(c, at, t);
      part.data += static_cast<size_t>(b.element(in_turn ? static_cast<int64_t>(i) : row, 0)) * tensor::format_block_bytes(b.format);
      if (in_turn) part.row_step = b.row_step * std::ssize(targets);
      row += part.rows;
      if ((t == LoraTarget::kK || t == LoraTarget::kV) && !shard.stores_kv) continue;  // nor has this rank the base's
      LoraMatrix& m = place_of(at, expert, t);
      m.scale = scale;
      if (shared)
        copies.emplace_back(shared, &m.a);
      else
        list(a, {}, columns_of(at, t), m.a);
      shared = shared ? shared : &m.a;
      list(part, rows_of(at, t), {}, m.b);
    }
    return {};
  }

  Result<> pack() {
    BATON_TRY(out.arena_, Arena::make(out.bytes_));
    std::byte* at = out.arena_.data();
    for (const Packing& p : packings) {
      p.to->data = at;
      tensor::pack_panels(p.from, p.rows, *p.to, 0, p.to->panels(), at, p.first_record);
      at += Arena::room(p.to->bytes());
    }
    for (const auto& [from, to] : copies) *to = *from;
    out.digest_ = hex(hash.finish());
    return {};
  }

  struct Packing {
    tensor::Matrix from;
    std::span<const int32_t> rows;
    int64_t first_record;
    tensor::Panels* to;
  };
  const ModelConfig& c;
  const Family* family;
  const PeftConfig& config;
  int32_t rank_max;
  const RankShard shard;
  LoraAdapter& out;
  const std::vector<int32_t> q_order, k_order, v_order, ffn_order, dense_order;
  std::set<std::tuple<int32_t, int32_t, LoraTarget>> adapted;  // layer and expert; so far, whether or not a part of it is this rank's
  std::map<Place, Pair> pairs;
  std::vector<Packing> packings;
  std::vector<std::pair<const tensor::Panels*, tensor::Panels*>> copies;
  Sha256 hash;
};

Result<std::shared_ptr<const LoraAdapter>> LoraAdapter::read(std::string_view config_json, std::span<const std::byte> safetensors,
                                                             const ModelConfig& model, int32_t rank_max, const LoraPart& part) {
  BATON_TRY(const PeftConfig config, parse_peft_config(config_json));
  constexpr std::string_view kFile = "adapter_model.safetensors";
  auto tensors = parse_safetensors(safetensors);
  if (!tensors) return within(kFile, std::move(tensors).error());
  auto adapter = std::make_shared<LoraAdapter>();
  adapter->number_ = part.number;
  Reader reader(model, config, rank_max, part.shard, *adapter);
  if (auto taken = reader.take(*tensors); !taken) return within(kFile, std::move(taken).error());
  BATON_OK(reader.check_targets());
  for (const auto& [at, pair] : reader.pairs) BATON_OK(reader.add(at, pair));
  BATON_OK(reader.pack());
  return adapter;
}

Result<std::shared_ptr<const LoraAdapter>> LoraAdapter::load(const std::string& directory, const ModelConfig& model, int32_t rank_max,
                                                             const LoraPart& part) {
  auto config = read_file(directory + "/adapter_config.json", kConfigBytesMax);
  if (!config && config.error().code == Code::kNotFound) return fail(Code::kNotFound, "No adapter found for ", directory);
  if (!config) return std::unexpected(config.error());
  auto file = MappedFile::open(directory + "/adapter_model.safetensors");
  if (!file && file.error().code == Code::kNotFound)
    return fail(Code::kInvalidArgument, directory, " doesn't contain adapter_model.safetensors (a .bin or .pt file is not read: it may hold code)");
  if (!file) return std::unexpected(file.error());
  return read(*config, file->bytes(), model, rank_max, part);
}

}  // namespace baton::model
