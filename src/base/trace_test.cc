#include "base/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace baton {
namespace {

constexpr const char* kGood = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

TEST(Traceparent, IsReadAndWritten) {
  const auto context = parse_traceparent(kGood);
  ASSERT_TRUE(context);
  EXPECT_TRUE(context->sampled);
  EXPECT_EQ(traceparent(*context), kGood);
  EXPECT_FALSE(parse_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")->sampled);
  EXPECT_TRUE(parse_traceparent("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later")) << "a later version may go on";
}

TEST(Traceparent, IsNotBelievedWhereItIsWrong) {
  for (const char* bad : {"", "00", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
                          "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                          "00-00000000000000000000000000000000-b7ad6b7169203331-01",
                          "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
                          "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
                          "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x",
                          "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01"})
    EXPECT_FALSE(parse_traceparent(bad)) << bad;
}

TEST(Sampler, NamesAreOpenTelemetrys) {
  const auto ratio = parse_sampler("parentbased_traceidratio", "0.25");
  ASSERT_TRUE(ratio);
  TraceContext parent = *parse_traceparent(kGood);
  EXPECT_TRUE(ratio->sample(&parent, parent.trace_id));
  parent.sampled = false;
  EXPECT_FALSE(ratio->sample(&parent, parent.trace_id));
  EXPECT_TRUE(parse_sampler("always_on", "")->sample(&parent, parent.trace_id)) << "no parent decides there";
  EXPECT_FALSE(parse_sampler("always_off", "")->sample(nullptr, parent.trace_id));
  for (const auto& [name, argument] :
       {std::pair("sometimes", ""), {"traceidratio", "2"}, {"traceidratio", "x"}, {"parentbased_", ""}, {"traceidratio", "nan"}})
    EXPECT_FALSE(parse_sampler(name, argument)) << name << " " << argument;
}

TEST(Sampler, KeepsItsShareOfTraces) {
  ManualClock clock;
  Tracer tracer({.sampler = *parse_sampler("traceidratio", "0.25")}, clock);
  int kept = 0;
  for (int i = 0; i < 4'000; ++i) kept += tracer.begin("a", SpanKind::kServer, std::nullopt).on();
  EXPECT_GT(kept, 800);
  EXPECT_LT(kept, 1'200);
}

TEST(Tracer, SpansKnowTheirParents) {
  ManualClock clock;
  Tracer tracer({}, clock);
  const auto remote = parse_traceparent(kGood);
  {
    Span request = tracer.begin("request", SpanKind::kServer, remote);
    clock.advance_ms(5);
    Span part = request.child("part");
    part.set("n", 3);
    part.fail("broken");
    clock.advance_ms(5);
    part.end();
    part.end();  // nothing more
    request.set("who", "me");
  }
  const auto spans = tracer.take(10);
  ASSERT_EQ(spans.size(), 2u);
  const SpanRecord &part = spans[0], &request = spans[1];
  EXPECT_EQ(request.parent, remote->span_id);
  EXPECT_EQ(request.context.trace_id, remote->trace_id);
  EXPECT_EQ(part.parent, request.context.span_id);
  EXPECT_NE(part.context.span_id, request.context.span_id);
  EXPECT_EQ(part.begin_unix_ns - request.begin_unix_ns, 5'000'000);
  EXPECT_EQ(part.end_unix_ns - part.begin_unix_ns, 5'000'000);
  EXPECT_TRUE(part.failed);
  EXPECT_EQ(std::get<int64_t>(part.attributes.at(0).value), 3);
  EXPECT_EQ(std::get<std::string>(request.attributes.at(0).value), "me");
  EXPECT_EQ(tracer.waiting(), 0u);
}

TEST(Tracer, UnsampledSpansCarryTheirContextOn) {
  ManualClock clock;
  Tracer tracer({.sampler = *parse_sampler("always_off", "")}, clock);
  Span span = tracer.begin("request", SpanKind::kServer, std::nullopt);
  EXPECT_TRUE(span.exists());
  EXPECT_FALSE(span.on());
  EXPECT_TRUE(span.context().valid());
  EXPECT_THAT(traceparent(span.child("part").context()), testing::EndsWith("-00"));
  span.end();
  EXPECT_EQ(tracer.counts().recorded, 0u);
  Span nobody;
  nobody.set("a", 1);
  EXPECT_FALSE(nobody.child("part").exists());
}

TEST(Tracer, AFullQueueDropsAndCounts) {
  ManualClock clock;
  Tracer tracer({.sampler = {}, .queue_max = 3}, clock);
  for (int i = 0; i < 5; ++i) tracer.begin("a", SpanKind::kInternal, std::nullopt).end();
  EXPECT_EQ(tracer.counts().recorded, 5u);
  EXPECT_EQ(tracer.counts().dropped, 2u);
  EXPECT_EQ(tracer.take(2).size(), 2u);
  EXPECT_EQ(tracer.take(2).size(), 1u);
}

}  // namespace
}  // namespace baton
