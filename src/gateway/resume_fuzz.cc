// Any bytes as a worker's stream, in any pieces, over several legs: no crash, bounded memory, and the first leg's bytes
// untouched.
#include <cstdint>

#include "gateway/resume.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton;
  using namespace baton::gateway;
  if (size < 2) return 0;
  const auto api = data[0] % 2 ? Resume::Api::kChat : Resume::Api::kCompletions;
  const size_t piece = 1 + data[0] / 2, first = size * data[1] / 256;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 2, size - 2);
  const std::string_view body =
      api == Resume::Api::kChat ? R"({"messages":[{"role":"user","content":"q"}],"max_tokens":9})" : R"({"prompt":"q"})";
  const bool asked_ids = data[1] % 2;
  Resume resume(api, asked_ids);
  std::string out;
  for (size_t at = 0; at < bytes.size() && at < first && !resume.failed(); at += piece)
    out += resume.pass(bytes.substr(at, piece));
  if (!asked_ids && !bytes.starts_with(out)) __builtin_trap();
  for (size_t at = first; at < bytes.size(); at += piece) {
    if (at % 7 == 0 && resume.ask(body)) {
      const bool by_ids = at % 2 == 0 && !resume.ask_ids(body, at % 4 == 0).with.empty();
      (void)resume.count_ids(bytes, "");
      (void)resume.next(body, Resume::Count{.prompt = 1, .sent = 2, .by_ids = by_ids});
    }
    if (!resume.failed()) (void)resume.pass(bytes.substr(at, piece));
  }
  (void)resume.flush();
  return 0;
}
