// Objects and watch events as API servers send them, and broken ones.
#include "discovery/kube_objects.h"

#include "discovery/fake_api.h"
#include "discovery/watch_decoder.h"

namespace baton::discovery {
namespace {

using testing::ElementsAre;

Json json(const std::string& text) {
  auto parsed = parse_json(text);
  EXPECT_TRUE(parsed) << text;
  return parsed ? *std::move(parsed) : Json();
}

std::vector<std::string> names(const std::vector<Member>& members) {
  std::vector<std::string> out;
  for (const Member& member : members) out.push_back(cat(member.name, " ", member.host, ' ', member.port));
  return out;
}

TEST(Pods, AreMembersWhenReadyAndNotDeleting) {
  const auto members = [](const std::string& text) { return names(members_of(*parse_pod(json(text)), "ns", {8000}, "")); };
  EXPECT_THAT(members(pod_json("p", "10.0.0.1")), ElementsAre("ns/p-rank-0 10.0.0.1 8000"));
  EXPECT_THAT(members(pod_json("p", "10.0.0.1", "", false)), ElementsAre());
  EXPECT_THAT(members(pod_json("p", "10.0.0.1", "", true, R"(,"deletionTimestamp":"2026-01-01T00:00:00Z")")), ElementsAre());
  EXPECT_THAT(members(pod_json("p", "10.0.0.1", "", true, R"(,"deletionTimestamp":null)")),
              ElementsAre("ns/p-rank-0 10.0.0.1 8000"));
  EXPECT_THAT(members(pod_json("p", "")), ElementsAre()) << "no address yet";
  EXPECT_THAT(members(pod_json("p", "evil\\r\\nx")), ElementsAre());
  EXPECT_THAT(members(pod_json("p", "fd00::7")), ElementsAre("ns/p-rank-0 fd00::7 8000"));
  EXPECT_THAT(members(R"({"metadata":{"name":"p"}})"), ElementsAre());
  EXPECT_FALSE(parse_pod(json("{}")));
}

TEST(Pods, HaveOneMemberPerActivePort) {
  const std::vector<int> ports = {8000, 8001, 8002};
  const auto active = [&](const std::string& annotations) {
    std::vector<int> ranks;
    const auto text = pod_json("p", "10.0.0.1", "", true, cat(R"(,"annotations":{)", annotations, "}"));
    for (const Member& member : members_of(*parse_pod(json(text)), "ns", ports, "")) ranks.push_back(member.rank);
    return ranks;
  };
  EXPECT_THAT(active(""), ElementsAre(0, 1, 2));
  EXPECT_THAT(active(R"("llm-d.ai/active-ports":" 8002 ,8000,x,9999")"), ElementsAre(0, 2));
  EXPECT_THAT(active(R"("inference.networking.k8s.io/active-ports":"8001")"), ElementsAre(1));
  EXPECT_THAT(active(R"("inference.networking.k8s.io/active-ports":"8001","llm-d.ai/active-ports":"8002")"), ElementsAre(2));
  EXPECT_THAT(active(R"("llm-d.ai/active-ports":"")"), ElementsAre());
}

TEST(Pods, OfTwoFamiliesAndWithAPlace) {
  const auto pod = parse_pod(json(
      R"({"metadata":{"name":"p","labels":{"llm-d.ai/role":"decode","topology.kubernetes.io/zone":"z1","topology.kubernetes.io/region":"r1"}},
          "spec":{"nodeName":"n7"},"status":{"podIP":"10.0.0.1","podIPs":[{"ip":"10.0.0.1"},{"ip":"fd00::1"}],
          "conditions":[{"type":"ContainersReady","status":"True"},{"type":"Ready","status":"True"}]}})"));
  const Member first = members_of(*pod, "ns", {1}, "")[0], six = members_of(*pod, "ns", {1}, "ipv6")[0];
  EXPECT_EQ(first.host, "10.0.0.1");
  EXPECT_THAT(first.other_hosts, ElementsAre("fd00::1"));
  EXPECT_EQ(six.host, "fd00::1");
  EXPECT_THAT(six.other_hosts, ElementsAre("10.0.0.1"));
  EXPECT_EQ(first.role, "decode");
  EXPECT_EQ(first.pod, "p");
  EXPECT_EQ(first.ns, "ns");
  EXPECT_EQ(cat(first.node, first.zone, first.region, first.rack), "n7z1r1");
}

TEST(Pools, OfBothGenerations) {
  const auto now = parse_pool(json(pool_json("p", R"("a":"b","c":"d")", "8000,8001")), "g");
  ASSERT_TRUE(now) << now.error().message;
  EXPECT_THAT(now->ports, ElementsAre(8000, 8001));
  EXPECT_EQ(selector_text(now->selector), "a=b,c=d");
  EXPECT_EQ(now->picker, "epp");
  const auto old = parse_pool(
      json(R"({"metadata":{"name":"p"},"spec":{"selector":{"a":"b"},"targetPortNumber":8200,"extensionRef":{"name":"e"}}})"),
      "g");
  ASSERT_TRUE(old) << old.error().message;
  EXPECT_THAT(old->ports, ElementsAre(8200));
  EXPECT_EQ(selector_text(old->selector), "a=b");
  EXPECT_EQ(old->picker, "e");
  for (const char* ports : {"0", "65536", "8000,8000", "1,2,3,4,5,6,7,8,9", ""}) {
    EXPECT_FALSE(parse_pool(json(pool_json("p", R"("a":"b")", ports)), "g")) << ports;
  }
  EXPECT_FALSE(parse_pool(json(pool_json("p", "")), "g")) << "an empty selector would select the picker itself";
}

TEST(Objectives, AndRewrites) {
  const auto objective = parse_objective(json(R"({"metadata":{"name":"o"},"spec":{"priority":-3,"poolRef":{"name":"p"}}})"));
  EXPECT_EQ(objective->pool, "p");
  EXPECT_EQ(objective->objective, (Objective{"o", -3}));
  const auto rewrite = parse_rewrite(json(
      R"({"metadata":{"name":"r","creationTimestamp":"1970-01-01T00:01:00Z"},"spec":{"poolRef":{"name":"p"},"rules":[
          {"matches":[{"model":{"type":"Exact","value":"m"}},{"model":{"value":"n"}}],"targets":[{"weight":3,"modelRewrite":"x"},{"modelRewrite":"y"}]},
          {"targets":[{"modelRewrite":"any"}]},
          {"matches":[{"model":{"type":"Prefix","value":"m"}}],"targets":[{"modelRewrite":"x"}]},
          {"matches":[{"header":{"name":"h"}}],"targets":[{"modelRewrite":"x"}]},
          {"targets":[]},{"targets":[{"weight":1}]}]}})"));
  ASSERT_TRUE(rewrite);
  EXPECT_EQ(rewrite->rewrite.created_s, 60);
  ASSERT_EQ(rewrite->rewrite.rules.size(), 2u) << "a match or target that is not understood is no rule, never \"any model\"";
  EXPECT_EQ(rewrite->rewrite.rules[0], (RewriteRule{{"m", "n"}, {{3, "x"}, {0, "y"}}}));
  EXPECT_EQ(rewrite->rewrite.rules[1], (RewriteRule{{}, {{0, "any"}}}));
}

TEST(Watch, EventsFromAnyPieces) {
  const std::string text =
      "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"a\",\"resourceVersion\":\"1\"}}}\n\n"
      "{\"type\":\"DELETED\",\"object\":{\"metadata\":{\"name\":\"a\",\"resourceVersion\":\"2\"}}}\r\n"
      "{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"3\"}}}\n"
      "{\"type\":\"ERROR\",\"object\":{\"code\":410,\"message\":\"old\"}}\n{\"type\":\"ADDED\"";
  for (size_t step = 1; step <= text.size(); ++step) {
    WatchDecoder decoder(1000);
    std::vector<WatchEvent> events;
    for (size_t at = 0; at < text.size(); at += step) ASSERT_TRUE(decoder.feed(std::string_view(text).substr(at, step), events));
    ASSERT_EQ(events.size(), 4u) << step;
    EXPECT_EQ(object_name(events[0].object), "a");
    EXPECT_EQ(events[1].type, WatchEvent::Type::kErase);
    EXPECT_EQ(events[2].version, "3");
    EXPECT_EQ(events[3].error_code, 410);
  }
}

TEST(Watch, BrokenEventsAreErrorsForGood) {
  for (const char* bad : {"nonsense\n", "{}\n", "{\"type\":\"ADDED\"}\n",
                          "{\"type\":\"X\",\"object\":{\"metadata\":{\"resourceVersion\":\"1\"}}}\n",
                          "{\"type\":\"ADDED\",\"object\":{}}\n", "{\"type\":\"ADDED\",\"object\":[]}\n"}) {
    WatchDecoder decoder(1000);
    std::vector<WatchEvent> events;
    EXPECT_FALSE(decoder.feed(bad, events)) << bad;
    EXPECT_FALSE(decoder.feed("\n", events)) << bad;
    EXPECT_TRUE(events.empty());
  }
  WatchDecoder decoder(1000);
  std::vector<WatchEvent> events;
  EXPECT_TRUE(decoder.feed(std::string(1000, ' '), events));
  EXPECT_EQ(decoder.feed(" ", events).error().code, Code::kResourceExhausted);
}

}  // namespace
}  // namespace baton::discovery
