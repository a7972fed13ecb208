#include "picker/answer_reader.h"

#include <gtest/gtest.h>

#include "base/prng.h"
#include "base/result.h"

namespace baton::picker {
namespace {

struct Read {
  std::string out;
  Usage usage;
  int64_t events = 0;
  bool done = false;
};

Read read(std::string_view answer, const AnswerOptions& options, Prng* prng = nullptr) {
  AnswerReader reader(options);
  Read r;
  for (size_t i = 0; i < answer.size() || i == 0;) {
    const size_t n = prng == nullptr ? answer.size() : std::min<size_t>(answer.size() - i, 1 + prng->below(prng->chance(0.5) ? 4 : 60));
    const std::string piece(answer.substr(i, n));
    i += std::max<size_t>(n, 1);
    r.out += reader.pass(piece, i >= answer.size());
    r.events += reader.events();
  }
  EXPECT_EQ(r.events, reader.events_total());
  r.usage = reader.usage();
  r.done = reader.done();
  return r;
}

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) text.replace(at, from.size(), to);
  return text;
}

struct Case {
  std::string_view name, text;
  bool stream;
  Usage usage;
  int64_t events;
  bool done;
};

const Case kCases[] = {
    {"chat stream",
     "data: {\"id\":\"1\",\"model\":\"served\",\"choices\":[{\"delta\":{\"role\":\"assistant\"}}],\"usage\":null}\n\n"
     "data: {\"id\":\"1\",\"model\":\"served\",\"choices\":[{\"delta\":{\"content\":\"the \\\"usage\\\":{\\\"prompt_tokens\\\":9} of "
     "\\\"model\\\":\\\"served\\\"\"}}]}\r\n\r\n"
     ": ping\n\n"
     "data: {\"id\":\"1\",\"model\": \"served\",\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"total_tokens\":15,\"completion_tokens\":3,"
     "\"prompt_tokens_details\":{\"cached_tokens\":8}}}\n\ndata: [DONE]\n\n",
     true, {12, 3, 15, 8, true, true}, 2, true},
    {"chat json",
     "{\"id\":\"1\",\"model\":\"served\",\"choices\":[{\"message\":{\"content\":\"x\"}}],\"usage\": {\"prompt_tokens\": 7, "
     "\"completion_tokens\": 5, \"total_tokens\": 12}}",
     false, {7, 5, 12, 0, true, false}, 0, false},
    {"anthropic stream",
     "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"served\",\"usage\":{\"input_tokens\":25,"
     "\"cache_read_input_tokens\":16,\"output_tokens\":1}}}\n\n"
     "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"Hi\"}}\n\n"
     "event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":15}}\n\n"
     "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
     true, {25, 15, 40, 16, true, true}, 1, true},
    {"responses stream",
     "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"model\":\"served\",\"usage\":null}}\n\n"
     "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Hi\"}\n\n"
     "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":3,\"input_tokens_details\":"
     "{\"cached_tokens\":0},\"output_tokens\":4,\"output_tokens_details\":{\"reasoning_tokens\":2},\"total_tokens\":7}}}\n\n",
     true, {3, 4, 7, 0, true, true}, 1, true},
    {"usage missing", "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: [DONE]\n\n", true, {}, 1, true},
    {"cut short", "data: {\"choices\":[{\"text\":\"a\"}],\"usage\":{\"prompt_tokens\":1", true, {}, 1, false},
    {"error", "{\"error\":{\"message\":\"model \\\"served\\\" is not here\",\"code\":404}}", false, {}, 0, false},
    {"empty", "", true, {}, 0, false},
};

TEST(AnswerReader, CountsAndNamesInAnySplit) {
  const uint64_t seed = secure_random_u64();
  SCOPED_TRACE(cat("seed ", seed));
  Prng prng(seed);
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    std::string expected = replaced(std::string(c.text), "\"model\":\"served\"", "\"model\":\"the \\\"asked\\\"\"");
    expected = replaced(expected, "\"model\": \"served\"", "\"model\": \"the \\\"asked\\\"\"");
    const AnswerOptions plain{.stream = c.stream}, renaming{.stream = c.stream, .served = "served", .asked = "the \"asked\""};
    for (int round = 0; round < 300; ++round) {
      const Read a = read(c.text, plain, round == 0 ? nullptr : &prng), b = read(c.text, renaming, round == 0 ? nullptr : &prng);
      ASSERT_EQ(a.out, c.text);
      ASSERT_EQ(b.out, expected);
      ASSERT_EQ(a.usage, c.usage);
      ASSERT_EQ(b.usage, c.usage);
      ASSERT_EQ(a.events, c.events);
      ASSERT_EQ(a.done, c.done);
    }
  }
}

TEST(AnswerReader, FindsUsageBehindALongText) {
  const std::string text(300'000, 'x');
  const std::string usage = "\"usage\":{\"input_tokens\":3,\"output_tokens\":4}";
  Prng prng(1);
  const Usage expected{3, 4, 7, 0, true, false};
  const std::string json = cat("{\"text\":\"", text, "\",", usage, "}");
  EXPECT_EQ(read(json, {}).usage, expected);
  EXPECT_EQ(read(json, {}, &prng).usage, expected);
  const std::string stream = cat("data: {\"type\":\"response.completed\",\"text\":\"", text, "\",", usage, "}\n\n");
  EXPECT_EQ(read(stream, {.stream = true}).usage, expected);
  EXPECT_EQ(read(stream, {.stream = true}, &prng).usage, expected);
  EXPECT_TRUE(read(stream, {.stream = true}, &prng).done);
}

TEST(AnswerReader, HoldsBackOnlyWhatMayBecomeAName) {
  AnswerReader reader({.stream = true, .served = "served", .asked = "asked"});
  EXPECT_EQ(reader.pass("data: {\"id\":\"1\"}\n\n", false), "data: {\"id\":\"1\"}\n\n");
  EXPECT_EQ(reader.pass("data: {\"mod", false), "data: {");
  EXPECT_EQ(reader.pass("el\": \"ser", false), "");
  EXPECT_EQ(reader.pass("ious\"}", false), "\"model\": \"serious\"}");
  EXPECT_EQ(reader.pass("\"", false), "");
  EXPECT_EQ(reader.pass("", true), "\"");
}

// The quote that ends one name begins what looks like the next key: not JSON, but no split may change what passes.
TEST(AnswerReader, OverlappingNamesAreReplacedOnce) {
  const std::string answer = R"("m"model":"m"model":"m"1mo"model":"m"1:"m"1mod)";
  AnswerOptions options;
  options.served = "m", options.asked = "client";
  AnswerReader whole(options);
  const std::string expected(whole.pass(answer, true));
  for (size_t step = 1; step <= answer.size(); ++step) {
    AnswerReader pieces(options);
    std::string out;
    for (size_t i = 0; i < answer.size(); i += step) out += pieces.pass(answer.substr(i, step), i + step >= answer.size());
    EXPECT_EQ(out, expected) << "pieces of " << step;
  }
}

}  // namespace
}  // namespace baton::picker
