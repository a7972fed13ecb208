#include <cstdlib>

#include "model/testing/tiny_model.h"

namespace baton::model::testing {
namespace {

bool set_dtype(TinySpec& spec, std::string_view name) {
  for (int i = 0; i <= static_cast<int>(Dtype::kMxfp4); i++) {
    if (dtype_name(static_cast<Dtype>(i)) == name) {
      spec.dtype = static_cast<Dtype>(i);
      return true;
    }
  }
  return false;
}

bool set_scaling(TinySpec& spec, std::string_view name) {
  constexpr std::string_view kNames[] = {"none", "linear", "llama3", "yarn", "longrope"};
  for (size_t i = 0; i < std::size(kNames); i++) {
    if (kNames[i] == name) {
      spec.rope_scaling = static_cast<RopeScaling>(i);
      return true;
    }
  }
  return false;
}

bool set(TinySpec& spec, const std::string& key, const std::string& value) {
  if (key == "dtype") return set_dtype(spec, value);
  if (key == "rope_scaling") return set_scaling(spec, value);
  if (key == "quant") {
    spec.quant = value;
    return true;
  }
  if (key == "family") {
    spec.family = value;
    return true;
  }
  struct Field {
    std::string_view name;
    int32_t TinySpec::* member;
  };
  static constexpr Field kFields[] = {{"layers", &TinySpec::layers},     {"hidden", &TinySpec::hidden},
                                      {"heads", &TinySpec::heads},       {"kv_heads", &TinySpec::kv_heads},
                                      {"head_dim", &TinySpec::head_dim}, {"ffn", &TinySpec::ffn},
                                      {"vocab", &TinySpec::vocab},       {"padded_rows", &TinySpec::padded_rows},
                                      {"context", &TinySpec::context},   {"shards", &TinySpec::shards},
                                      {"window", &TinySpec::window},     {"rotated", &TinySpec::rotated},
                                      {"experts", &TinySpec::experts},   {"experts_used", &TinySpec::experts_used},
                                      {"sparse_step", &TinySpec::sparse_step}, {"dense_layer", &TinySpec::dense_layer},
                                      {"dense_ffn", &TinySpec::dense_ffn}};
  const double number = std::atof(value.c_str());
  for (const auto& f : kFields) {
    if (f.name == key) {
      spec.*f.member = static_cast<int32_t>(number);
      return true;
    }
  }
  if (key == "seed") return spec.seed = static_cast<uint64_t>(number), true;
  if (key == "expand") return spec.expand = number != 0, true;
  if (key == "tied") return spec.tied = number != 0, true;
  if (key == "rope_theta") return spec.rope_theta = number, true;
  if (key == "rope_original_context") return spec.rope_original_context = number, true;
  if (key == "soft_cap") return spec.soft_cap = number, true;
  if (key == "rope_factor") return spec.rope_factor = number, true;
  return false;
}

}  // namespace

Result<TinySpec> parse_tiny_spec(const std::vector<std::string>& fields) {
  TinySpec spec;
  for (const auto& field : fields) {
    const size_t eq = field.find('=');
    if (eq == std::string::npos || !set(spec, field.substr(0, eq), field.substr(eq + 1))) {
      return fail(Code::kInvalidArgument, "tiny model: not understood: ", field);
    }
  }
  return spec;
}

}  // namespace baton::model::testing
