// tiny_model gguf|hf PATH [layers=2] [dtype=Q4_1] [family=qwen2] ...: writes the synthetic model of a TinySpec.
// tiny_model lora PATH [layers=2] ... -- [rank=4] [targets=q_proj+v_proj] ...: a TinyLora for that model.
#include <algorithm>
#include <cstdio>

#include "model/testing/tiny_lora.h"
#include "model/testing/tiny_model.h"

namespace baton::model::testing {
namespace {

Result<> run(int argc, char** argv) {
  if (argc < 3) return fail(Code::kInvalidArgument, "usage: tiny_model gguf|hf|lora PATH [KEY=VALUE...] [-- KEY=VALUE...]");
  char** const dashes = std::find(argv + 3, argv + argc, std::string_view("--"));
  BATON_TRY(const TinySpec spec, parse_tiny_spec({argv + 3, dashes}));
  BATON_TRY(const TinyLora lora, parse_tiny_lora({std::min(dashes + 1, argv + argc), argv + argc}));
  if (std::string_view(argv[1]) == "lora") return write_tiny_lora(argv[2], lora, spec);
  return std::string_view(argv[1]) == "gguf" ? write_tiny_gguf(argv[2], spec) : write_tiny_hf(argv[2], spec);
}

}  // namespace
}  // namespace baton::model::testing

int main(int argc, char** argv) {
  const auto done = baton::model::testing::run(argc, argv);
  if (!done) std::fprintf(stderr, "%s\n", done.error().message.c_str());
  return done ? 0 : 1;
}
