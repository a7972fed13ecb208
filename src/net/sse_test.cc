#include "net/sse.h"

#include "base/prng.h"

namespace baton::net {
namespace {

std::vector<SseEvent> parse(std::string_view text) {
  SseParser parser;
  std::vector<SseEvent> events;
  EXPECT_TRUE(parser.feed(text, events).has_value());
  return events;
}

std::vector<std::string> data(std::string_view text) {
  std::vector<std::string> all;
  for (auto& e : parse(text)) all.push_back(e.data);
  return all;
}

using Strings = std::vector<std::string>;

TEST(Sse, OpenAiStream) {
  EXPECT_EQ(data("data: {\"a\":1}\n\ndata: {\"b\":2}\n\ndata: [DONE]\n\n"), (Strings{"{\"a\":1}", "{\"b\":2}", "[DONE]"}));
}

TEST(Sse, LineEndsCommentsAndFields) {
  EXPECT_EQ(data("data: a\r\n\r\ndata: b\r\rdata: c\n\n"), (Strings{"a", "b", "c"}));
  EXPECT_EQ(data(": ping\n\ndata: a\n: inside\nid: 7\nretry: 3\nwhat: x\n\n"), (Strings{"a"}));
  EXPECT_EQ(data("data: a\ndata:b\ndata\ndata:  c\n\n"), (Strings{"a\nb\n\n c"}));
  EXPECT_EQ(data("data\n\n"), (Strings{""}));
  EXPECT_EQ(data("event: x\n\ndata: a\n\n"), (Strings{"a"}));
  EXPECT_EQ(data("\xef\xbb\xbf"
                 "data: a\n\n"),
            (Strings{"a"}));
  EXPECT_EQ(parse("event: done\ndata: x\n\ndata: y\n\n"), (std::vector<SseEvent>{{"done", "x"}, {"", "y"}}));
}

TEST(Sse, UnfinishedEventIsDropped) {
  SseParser parser;
  std::vector<SseEvent> events;
  ASSERT_TRUE(parser.feed("data: a\n\ndata: b\n", events).has_value());
  EXPECT_EQ(events.size(), 1u);
  EXPECT_TRUE(parser.unfinished());
}

TEST(Sse, EventsAreBounded) {
  std::vector<SseEvent> events;
  EXPECT_EQ(SseParser(100).feed(std::string(101, 'x'), events).error().code, Code::kResourceExhausted);
  SseParser lines(100);
  Result<> fed;
  for (int i = 0; i < 100 && fed; ++i) fed = lines.feed("data: 0123456789\n", events);
  EXPECT_EQ(fed.error().code, Code::kResourceExhausted);
  SseParser many(100);
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(many.feed("data: 0123456789\n\n", events).has_value());
  EXPECT_EQ(events.size(), 100u);
}

TEST(Sse, CutsDoNotMatter) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    Prng prng(seed);
    static constexpr std::string_view kParts[] = {"data: ", "data:", "\n", "\r",       "\r\n", "\n\n",
                                                  "x",      ":",     " ",  "event: e", "é",    "data"};
    std::string text;
    for (int i = 0; i < 60; ++i) text += kParts[prng.below(std::size(kParts))];
    SseParser parser;
    std::vector<SseEvent> pieces;
    for (size_t at = 0; at < text.size();) {
      size_t n = prng.below(5);
      ASSERT_TRUE(parser.feed(std::string_view(text).substr(at, n), pieces).has_value());
      at += n;
    }
    EXPECT_EQ(pieces, parse(text));
  }
}

}  // namespace
}  // namespace baton::net
