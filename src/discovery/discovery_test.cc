// Endpoint files: what is read, what is refused and how, and that changes are followed while bad ones are not.
#include <unistd.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>

#include "base/prng.h"
#include "discovery/file_discovery.h"
#include "discovery/limits.h"

namespace baton::discovery {
namespace {

TEST(Members, ReadsLlmdFiles) {
  auto members = parse_members(R"(
endpoints:
  - name: vllm-0
    namespace: default
    address: "10.0.0.1"
    port: "8000"
    labels: {llm-d.ai/role: prefill, zone: a}
  - name: vllm-1
    address: 10.0.0.2
    port: 8200
)");
  ASSERT_TRUE(members) << members.error().message;
  ASSERT_EQ(members->size(), 2u);
  Member first{"10.0.0.1", 8000, "prefill", {}, "vllm-0", {{"llm-d.ai/role", "prefill"}, {"zone", "a"}}};
  first.ns = "default";
  EXPECT_EQ((*members)[0], first);
  EXPECT_EQ((*members)[1], (Member{"10.0.0.2", 8200, "", {}, "vllm-1", {}}));
}

TEST(Members, ReadsPlainListsAndJson) {
  auto members = parse_members(R"([{"address":"a.b","port":1,"role":"decode","model":"m"},
    {"address":"[fd00::1]:2","models":["x","y"]}, {"address":"fd00::2","port":3}, {"address":"h:4"}])");
  ASSERT_TRUE(members) << members.error().message;
  EXPECT_EQ((*members)[0], (Member{"a.b", 1, "decode", {"m"}, "", {}}));
  EXPECT_EQ((*members)[1], (Member{"fd00::1", 2, "", {"x", "y"}, "", {}}));
  EXPECT_EQ((*members)[2], (Member{"fd00::2", 3, "", {}, "", {}}));
  EXPECT_EQ((*members)[3], (Member{"h", 4, "", {}, "", {}}));
  EXPECT_TRUE(parse_members("endpoints:\n")->empty());
}

TEST(Members, SayWhichPodAndWhere) {
  auto members = parse_members(R"(
- {address: 10.0.0.1, port: 8001, namespace: llm-d, pod: decode-0, rank: 1, node: n1, zone: z1,
   labels: {topology.kubernetes.io/zone: other, topology.kubernetes.io/region: r1}}
)");
  ASSERT_TRUE(members) << members.error().message;
  const Member& m = members->front();
  EXPECT_EQ(cat(m.ns, ' ', m.pod, ' ', m.rank, ' ', m.node, ' ', m.zone, ' ', m.region, ' ', m.rack),
            "llm-d decode-0 1 n1 z1 r1 ");
}

TEST(Members, IPv6HasOneSpelling) {
  auto members =
      parse_members(R"([{"address":"[FD00:0:0::1]:2"},{"address":"[fe80::1%eth0]","port":3},{"address":"fd00:0::2","port":4}])");
  ASSERT_TRUE(members) << members.error().message;
  EXPECT_EQ((*members)[0].host, "fd00::1");
  EXPECT_EQ((*members)[1].host, "fe80::1%eth0");
  EXPECT_EQ((*members)[2].host, "fd00::2");
  EXPECT_THAT(parse_members("- {address: 'fd00::1', port: 1}\n- {address: 'FD00::1', port: 1}").error().message,
              testing::HasSubstr("twice"));
}

TEST(Members, AsClusterStates) {
  const auto path = std::filesystem::temp_directory_path() / ("baton-members-" + random_hex(16));
  std::ofstream(path) << "- {address: a, port: 1}";
  FileDiscovery files(path);
  std::shared_ptr<const ClusterState> state;
  ASSERT_TRUE(start_cluster(files, "pool", "ns", [&](auto next) { state = std::move(next); }));
  files.stop();
  ASSERT_TRUE(state);
  EXPECT_TRUE(state->synced);
  EXPECT_EQ(cat(state->pool, state->pool_namespace, state->generation, state->members.at(0).host), "poolns1a");
  std::filesystem::remove(path);
}

TEST(Members, RefusesWithAllErrorsAndLines) {
  auto bad = parse_members(
      "endpoints:\n- address: 10.0.0.1\n  port: 0\n- address: ''\n  port: 5\n- role: driver\n  address: x\n  port: 1\n");
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().message, testing::AllOf(testing::HasSubstr("line 2: port"), testing::HasSubstr("line 4: address"),
                                                  testing::HasSubstr("line 6: role")));
  const std::pair<const char*, const char*> kCases[] = {
      {"[}", "not YAML"},
      {"just text", "must be a list"},
      {"pods: []", "endpoints"},
      {"endpoints: {a: 1}", "must be a list"},
      {"- 5", "must be a map"},
      {"- address: a b\n  port: 1", "host name"},
      {"- address: a/../b\n  port: 1", "host name"},
      {"- address: a\n  port: 65536", "65535"},
      {"- address: a\n  port: 1x", "1x"},
      {"- address: a\n  port: [1]", "must be a text"},
      {"- address: '[::1]80'", "after [address]"},
      {"- address: '[10.0.0.1]:80'", "host name"},
      {"- address: 'a:b:c'\n  port: 1", "host name"},
      {"- {address: a, port: 1, rank: -1}", "rank"},
      {"- {address: a, port: 1}\n- {address: a, port: 1}", "twice"},
      {"- {address: a, port: 1, labels: [x]}", "labels"},
      {"- {address: a, port: 1, models: x}", "models"},
  };
  for (const auto& [text, part] : kCases) {
    auto result = parse_members(text);
    ASSERT_FALSE(result) << text;
    EXPECT_THAT(result.error().message, testing::HasSubstr(part)) << text;
  }
  EXPECT_FALSE(parse_members(std::string(kFileBytesMax + 1, '#')));
  std::string many;
  for (size_t i = 0; i <= kMembersMax; ++i) many += cat("- {address: h", i, ", port: 1}\n");
  EXPECT_FALSE(parse_members(many));
  EXPECT_FALSE(parse_members(std::string(100'000, '[')));  // depth
}

class Following : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::temp_directory_path() / ("baton-discovery-" + random_hex(16));
    std::filesystem::create_directory(dir_);
    path_ = dir_ / "endpoints.yaml";
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  void replace(const std::string& text) {  // as an editor or a ConfigMap does
    const auto fresh = dir_ / "fresh";
    std::ofstream(fresh) << text;
    std::filesystem::rename(fresh, path_);
  }
  void changed(std::shared_ptr<const Membership> membership) {
    std::lock_guard lock(mutex_);
    seen_ = std::move(membership);
    wake_.notify_all();
  }
  bool wait_for(uint64_t generation) {
    std::unique_lock lock(mutex_);
    return wake_.wait_for(lock, std::chrono::seconds(20), [&] { return seen_ && seen_->generation >= generation; });
  }
  std::filesystem::path dir_, path_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::shared_ptr<const Membership> seen_;
};

TEST_F(Following, StartFailsOnAMissingOrBadFile) {
  FileDiscovery missing(path_);
  EXPECT_EQ(missing.start(nullptr).error().code, Code::kNotFound);
  replace("nonsense");
  FileDiscovery bad(path_);
  EXPECT_EQ(bad.start(nullptr).error().code, Code::kInvalidArgument);
}

TEST_F(Following, FollowsChangesAndKeepsTheLastGoodFile) {
  replace("- {address: a, port: 1}");
  FileDiscovery discovery(path_, std::chrono::hours(1));  // inotify alone
  ASSERT_TRUE(discovery.start([&](auto membership) { changed(membership); }));
  EXPECT_EQ(discovery.current()->members.size(), 1u);
  replace("- {address: a, port: 1}\n- {address: b, port: 2}");
  ASSERT_TRUE(wait_for(2));
  EXPECT_EQ(discovery.current()->members.size(), 2u);
  replace("- {address: a, port: ");
  std::filesystem::remove(path_);
  replace("- {address: c, port: 3}");
  ASSERT_TRUE(wait_for(3));
  EXPECT_EQ(discovery.current()->generation, 3u) << "bad and missing files make no generation";
  EXPECT_EQ(discovery.current()->members[0].host, "c");
  discovery.stop();
  discovery.stop();
}

TEST_F(Following, LooksForItselfWhereInotifySeesNothing) {
  // A symlink to another directory: events there do not reach the watch on ours.
  const auto other = dir_ / "other";
  std::filesystem::create_directory(other);
  std::ofstream(other / "real") << "- {address: a, port: 1}";
  std::filesystem::create_symlink(other / "real", path_);
  FileDiscovery discovery(path_, std::chrono::milliseconds(5));
  ASSERT_TRUE(discovery.start([&](auto membership) { changed(membership); }));
  std::ofstream(other / "fresh") << "- {address: b, port: 1}";
  std::filesystem::rename(other / "fresh", other / "real");
  EXPECT_TRUE(wait_for(2));
}

}  // namespace
}  // namespace baton::discovery
