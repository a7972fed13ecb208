// Any bytes as an answer: what passes does not depend on the split, nothing is lost, and without a name to replace nothing changes.
#include <cstdlib>

#include "picker/answer_reader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton::picker;
  if (size < 2) return 0;
  const size_t step = 1 + data[1] % 32;
  const std::string_view answer(reinterpret_cast<const char*>(data) + 2, size - 2);
  AnswerOptions options{.stream = (data[0] & 1) != 0};
  if ((data[0] & 2) != 0) options.served = "m", options.asked = "client";
  AnswerReader whole(options), pieces(options);
  const std::string expected(whole.pass(answer, true));
  if (options.served.empty() && expected != answer) std::abort();
  std::string out;
  for (size_t i = 0; i < answer.size(); i += step) {
    const std::string piece(answer.substr(i, step));
    out += pieces.pass(piece, i + step >= answer.size());
  }
  if (answer.size() < 60'000 && (out != expected || pieces.usage() != whole.usage() || pieces.events_total() != whole.events_total()))
    std::abort();
  return 0;
}
