// tiny_model gguf|hf PATH [layers=2] [dtype=Q4_1] [family=qwen2] ...: writes the synthetic model of a TinySpec.
#include <cstdio>
#include <cstdlib>

#include "model/testing/tiny_model.h"

namespace baton::model::testing {
namespace {

bool set_dtype(TinySpec& spec, std::string_view name) {
  for (int i = 0; i <= static_cast<int>(Dtype::kQ6_K); i++) {
    if (dtype_name(static_cast<Dtype>(i)) == name) {
      spec.dtype = static_cast<Dtype>(i);
      return true;
    }
  }
  return false;
}

bool set_scaling(TinySpec& spec, std::string_view name) {
  constexpr std::string_view kNames[] = {"none", "linear", "llama3", "yarn"};
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
                                      {"context", &TinySpec::context},   {"shards", &TinySpec::shards}};
  const double number = std::atof(value.c_str());
  for (const auto& f : kFields) {
    if (f.name == key) {
      spec.*f.member = static_cast<int32_t>(number);
      return true;
    }
  }
  if (key == "seed") return spec.seed = static_cast<uint64_t>(number), true;
  if (key == "tied") return spec.tied = number != 0, true;
  if (key == "rope_theta") return spec.rope_theta = number, true;
  if (key == "rope_factor") return spec.rope_factor = number, true;
  return false;
}

int run(int argc, char** argv) {
  if (argc < 3) return std::fprintf(stderr, "usage: tiny_model gguf|hf PATH [KEY=VALUE...]\n"), 2;
  TinySpec spec;
  for (int i = 3; i < argc; i++) {
    const std::string arg = argv[i];
    const size_t eq = arg.find('=');
    if (eq == std::string::npos || !set(spec, arg.substr(0, eq), arg.substr(eq + 1))) {
      return std::fprintf(stderr, "tiny_model: not understood: %s\n", argv[i]), 2;
    }
  }
  const bool gguf = std::string_view(argv[1]) == "gguf";
  if (const auto done = gguf ? write_tiny_gguf(argv[2], spec) : write_tiny_hf(argv[2], spec); !done) {
    return std::fprintf(stderr, "%s\n", done.error().message.c_str()), 1;
  }
  return 0;
}

}  // namespace
}  // namespace baton::model::testing

int main(int argc, char** argv) { return baton::model::testing::run(argc, argv); }
