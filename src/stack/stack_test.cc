// Tests of the local stack: its plan, its downloads against a real loopback server, its processes.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <zip.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <set>

#include "base/json.h"
#include "base/prng.h"
#include "base/sha256.h"
#include "net/http.h"
#include "stack/chat.h"
#include "stack/plan.h"
#include "stack/process.h"
#include "stack/pull.h"
#include "stack/status.h"
#include "stack/workers.h"

namespace baton::stack {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;

struct TempDir {
  std::string path = cat(testing::TempDir(), "/baton-", random_hex(8));
  TempDir() { fs::create_directories(path); }
  ~TempDir() { fs::remove_all(path); }
};

std::string value_after(const std::vector<std::string>& argv, std::string_view flag) {
  auto at = std::find(argv.begin(), argv.end(), flag);
  return at == argv.end() || at + 1 == argv.end() ? "" : *(at + 1);
}

StackConfig shape(int prefill, int decode) {
  StackConfig c;
  c.prefill = prefill, c.decode = decode, c.model = "m.gguf", c.bin_dir = "/bin";
  return c;
}

TEST(Plan, EveryShapeWiresEveryPortOnce) {
  for (int prefill = 0; prefill <= 3; ++prefill) {
    for (int decode = 1; decode <= 3; ++decode) {
      StackConfig c = shape(prefill, decode);
      std::vector<int> ports(static_cast<size_t>(ports_needed(c)));
      std::iota(ports.begin(), ports.end(), 5000);
      auto plan = make_plan(c, ports, "e.json", 8);
      ASSERT_TRUE(plan) << plan.error().message;
      EXPECT_EQ(plan->router_port, 5000);
      EXPECT_EQ(static_cast<int>(plan->workers.size()), prefill + decode * (prefill > 0 ? 2 : 1) + 1);
      std::multiset<int> used;
      for (const auto& w : plan->workers) {
        used.insert(w.port);
        if (auto kv = value_after(w.argv, "--kv-transfer-port"); !kv.empty()) used.insert(std::stoi(kv));
      }
      EXPECT_EQ(std::set<int>(used.begin(), used.end()).size(), used.size()) << prefill << "P" << decode << "D";
      auto endpoints = parse_json(plan->endpoints);
      ASSERT_TRUE(endpoints);
      EXPECT_EQ(static_cast<int>(endpoints->find("endpoints")->items.size()), prefill + decode);
      EXPECT_EQ(plan->workers.back().name, "router");
    }
  }
}

TEST(Plan, SidecarStandsBetweenRouterAndDecode) {
  StackConfig c = shape(1, 1);
  auto plan = *make_plan(c, {1, 2, 3, 4, 5, 6}, "e", 2);
  const auto& decode = plan.workers[1];
  const auto& sidecar = plan.workers[2];
  EXPECT_EQ(value_after(sidecar.argv, "--model-server-port"), std::to_string(decode.port));
  EXPECT_EQ(value_after(decode.argv, "--kv-peers"), "127.0.0.1:" + value_after(plan.workers[0].argv, "--kv-transfer-port"));
  EXPECT_THAT(plan.endpoints, HasSubstr(cat("\"port\":", sidecar.port)));
  EXPECT_THAT(plan.endpoints, testing::Not(HasSubstr(cat("\"port\":", decode.port))));
}

// vLLM's word for it and llm-d's are not the same one.
TEST(Plan, EachPartIsToldTheLogLevelInItsOwnWords) {
  StackConfig c;
  c.prefill = c.decode = 1;
  c.log_level = "warning";
  for (const auto& w : make_plan(c, {1, 2, 3, 4, 5, 6}, "e", 2)->workers) {
    auto at = std::find(w.argv.begin(), w.argv.end(), "--log-level");
    ASSERT_NE(at, w.argv.end());
    EXPECT_EQ(*(at + 1), w.argv[0].ends_with("engine") ? "warning" : "warn") << w.name;
  }
}

TEST(Plan, RefusesMoreThanOneMachineShouldRun) {
  StackConfig c = shape(40, 40);
  std::vector<int> ports(static_cast<size_t>(ports_needed(c)));
  EXPECT_FALSE(make_plan(c, ports, "e", 2));
}

TEST(Plan, FreePortsDiffer) {
  auto ports = *free_ports(20);
  EXPECT_EQ(std::set<int>(ports.begin(), ports.end()).size(), 20u);
}

TEST(Pull, FindsTheWheelWhereverTheLinkPoints) {
  std::string_view page = "http://h/simple/p/";
  EXPECT_EQ(*find_in_index("<a href=\"https://f/x/p-1.whl#sha256=ab\">p-1.whl</a>", page, "p-1.whl"), "https://f/x/p-1.whl");
  EXPECT_EQ(*find_in_index("<a href=\"/x/p-1.whl?a=1&amp;b=2#sha256=ab\">p-1.whl</a>", page, "p-1.whl"),
            "http://h/x/p-1.whl?a=1&b=2");
  EXPECT_EQ(*find_in_index("<a href=\"p-1.whl\">p-1.whl</a>", page, "p-1.whl"), "http://h/simple/p/p-1.whl");
  EXPECT_FALSE(find_in_index("<a href=\"p-2.whl\">p-2.whl</a>", page, "p-1.whl"));
  EXPECT_FALSE(find_in_index(">p-1.whl</a>", page, "p-1.whl"));
}

// Serves `content` with ranges; the first `broken` answers end in the middle.
struct FileServer {
  explicit FileServer(std::string text, int broken_answers = 0) : content(std::move(text)), broken(broken_answers) {
    auto handler = [this](net::Request& r, net::ResponseWriter& w) -> net::Task<> {
      ++requests;
      size_t from = 0;
      if (auto range = r.headers.get("range"); range && ranges) {
        ranged = true;
        from = std::stoul(std::string(range->substr(6)));
        if (from >= content.size()) {
          (void)co_await w.send(net::Response::text(416, ""));
          co_return;
        }
      }
      net::Headers headers{{"content-length", std::to_string(content.size() - from)},
                           {"content-range", cat("bytes ", from, "-", content.size() - 1, "/", content.size())}};
      (void)co_await w.begin(from > 0 ? 206 : 200, headers);
      size_t n = broken-- > 0 ? (content.size() - from) / 2 : content.size() - from;
      (void)co_await w.write(std::string_view(content).substr(from, n));
      if (n == content.size() - from) (void)co_await w.finish();
    };
    server = std::make_unique<net::Server>(net::ServerOptions{}, [handler] { return handler; });
    BATON_CHECK(server->start().has_value());
  }
  ~FileServer() { server->stop(net::Millis(1000)); }
  std::string url() const { return cat("http://127.0.0.1:", server->port(), "/model.bin"); }
  std::string content;
  std::atomic<int> broken, requests{0};
  std::atomic<bool> ranged{false};
  bool ranges = true;
  std::unique_ptr<net::Server> server;
};

std::string some_bytes(size_t n) {
  Prng rng(3);
  std::string s(n, '\0');
  for (char& c : s) c = static_cast<char>(rng.next());
  return s;
}

std::string digest_of(std::string_view text) { return hex(Sha256().update(text).finish()); }

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(Pull, ResumesWhereTheConnectionBroke) {
  TempDir dir;
  FileServer server(some_bytes(1 << 20), 2);
  std::string path = dir.path + "/m";
  int64_t last = 0;
  auto r = download(server.url(), path, digest_of(server.content), [&](int64_t done, int64_t) { last = std::max(last, done); });
  ASSERT_TRUE(r) << r.error().message;
  EXPECT_EQ(read_file(path), server.content);
  EXPECT_TRUE(server.ranged);
  EXPECT_EQ(server.requests, 3);
  EXPECT_EQ(last, 1 << 20);
}

TEST(Pull, BeginsAgainWhenTheServerKnowsNoRanges) {
  TempDir dir;
  FileServer server(some_bytes(300'000), 1);
  server.ranges = false;
  ASSERT_TRUE(download(server.url(), dir.path + "/m", digest_of(server.content), {}));
  EXPECT_EQ(read_file(dir.path + "/m"), server.content);
}

TEST(Pull, ThrowsAwayWhatHasTheWrongChecksum) {
  TempDir dir;
  FileServer server("not the model");
  auto r = download(server.url(), dir.path + "/m", digest_of("the model"), {});
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, Code::kDataLoss);
  EXPECT_THAT(r.error().message, HasSubstr("checksum"));
  EXPECT_FALSE(fs::exists(dir.path + "/m"));
  EXPECT_FALSE(fs::exists(dir.path + "/m.part"));
}

TEST(Pull, SecondPullDoesNothing) {
  TempDir dir;
  FileServer server(some_bytes(1000));
  PullConfig c{.model_dir = dir.path, .sha256 = digest_of(server.content), .quiet = true};
  ASSERT_TRUE(pull(server.url(), c));
  int before = server.requests;
  EXPECT_EQ(*pull(server.url(), c), dir.path + "/model.bin");
  EXPECT_EQ(server.requests, before);
}

TEST(Pull, UnknownNameListsTheKnown) {
  TempDir dir;
  auto r = pull("gpt-9", {.model_dir = dir.path, .sha256 = "", .quiet = true});
  ASSERT_FALSE(r);
  EXPECT_THAT(r.error().message, HasSubstr("smollm2"));
}

TEST(Pull, UnzipsOneMember) {
  TempDir dir;
  std::string zip = dir.path + "/a.zip", text = std::string(100'000, 'x') + "end";
  zip_t* z = zip_open(zip.c_str(), ZIP_CREATE, nullptr);
  zip_file_add(z, "d/m.gguf", zip_source_buffer(z, text.data(), text.size(), 0), ZIP_FL_OVERWRITE);
  ASSERT_EQ(zip_close(z), 0);
  ASSERT_TRUE(unzip_member(zip, "d/m.gguf", dir.path + "/m"));
  EXPECT_EQ(read_file(dir.path + "/m"), text);
  EXPECT_FALSE(unzip_member(zip, "other", dir.path + "/m2"));
  std::ofstream(dir.path + "/bad") << "no zip";
  EXPECT_FALSE(unzip_member(dir.path + "/bad", "other", dir.path + "/m2"));
}

std::vector<std::string> lines_of(Process& p) {
  std::vector<std::string> lines;
  while (p.output_fd() >= 0) {
    pollfd fd{p.output_fd(), POLLIN, 0};
    poll(&fd, 1, 5000);
    p.read_lines([&](std::string_view line) { lines.emplace_back(line); });
  }
  return lines;
}

TEST(Process, LinesAndExit) {
  auto p = Process::spawn({"/bin/sh", "-c", "echo one; echo two >&2; printf three; exit 3"});
  ASSERT_TRUE(p) << p.error().message;
  EXPECT_THAT(lines_of(*p), testing::UnorderedElementsAre("one", "two", "three"));
  int status = 0;
  waitpid(p->pid(), &status, 0);
  p->reaped();
  EXPECT_EQ(describe_exit(status), "exit status 3");
}

TEST(Process, WhatCannotStartSaysWhy) {
  auto p = Process::spawn({"/no/such/program"});
  ASSERT_FALSE(p);
  EXPECT_THAT(p.error().message, HasSubstr("No such file"));
}

TEST(Process, DestructionKills) {
  pid_t pid = 0;
  {
    auto p = Process::spawn({"/bin/sh", "-c", "exec tail -f /dev/null"});
    ASSERT_TRUE(p);
    pid = p->pid();
  }
  EXPECT_EQ(kill(pid, 0), -1);
}

TEST(Status, ReadsTheSamplesItShows) {
  WorkerStatus w;
  read_metrics(
      "# HELP vllm:num_requests_running x\nvllm:num_requests_running{engine=\"0\"} 3.0\nvllm:num_requests_waiting_by_reason{} 9\n"
      "vllm:num_requests_waiting{a=\"b\"} 2.0\nvllm:kv_cache_usage_perc 0.25\n",
      w);
  EXPECT_EQ(w.running, 3);
  EXPECT_EQ(w.waiting, 2);
  EXPECT_EQ(w.kv_usage, 0.25);
}

TEST(Status, WhoDoesNotReadHoldsNobodyUp) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  std::fflush(stdout);
  const int real = dup(1);
  dup2(ends[1], 1);
  StatusView view(false);
  for (int i = 0; i < 5000; ++i) view.event("decode-0 ended (killed by signal 9), starting it again in 250 ms");
  std::string text(1 << 20, '\0');
  auto n = read(ends[0], text.data(), text.size());
  view.event("stopped");
  std::fflush(stdout);
  dup2(real, 1);
  close(real);
  close(ends[1]);
  EXPECT_GT(n, 1000);
  text.resize(static_cast<size_t>(std::max<ssize_t>(0, read(ends[0], text.data(), text.size()))));
  close(ends[0]);
  EXPECT_THAT(text, testing::HasSubstr(" lines were not read in time)\nstopped\n"));
}

TEST(Status, CountsTheEndpointsARouterCanUse) {
  EXPECT_EQ(endpoints_up(""), 0);
  EXPECT_EQ(
      endpoints_up("# TYPE baton_gateway_endpoint_up gauge\nbaton_gateway_endpoint_up{endpoint=\"a:1\"} 1\n"
                   "baton_gateway_endpoint_up{endpoint=\"b:1\",pool=\"p\"} 1.0\nbaton_gateway_endpoint_up{endpoint=\"c:1\"} 0\n"
                   "baton_gateway_endpoint_inflight_requests{endpoint=\"a:1\"} 1"),
      2);
}

TEST(Url, Parses) {
  auto u = parse_url("http://[::1]:81/v1");
  ASSERT_TRUE(u);
  EXPECT_EQ(u->host, "::1");
  EXPECT_EQ(u->port, 81);
  EXPECT_EQ(u->path, "/v1");
  EXPECT_EQ(parse_url("http://h")->port, 80);
  EXPECT_FALSE(parse_url("https://h"));
  EXPECT_FALSE(parse_url("http://h:99999"));
  EXPECT_FALSE(parse_url("h:1"));
}

TEST(Workers, AFileSaysWhoRuns) {
  const std::vector<RunningWorker> all{{.name = "prefill-0", .role = "prefill", .pid = 4711, .port = 8100},
                                       {.name = "router", .role = "router", .pid = 4712, .port = 8000}};
  auto read = parse_workers(workers_text(all));
  ASSERT_TRUE(read.has_value()) << read.error().message;
  EXPECT_EQ(*read, all);
  EXPECT_TRUE(parse_workers("")->empty());
  for (const char* bad : {"prefill-0 prefill", "prefill-0 prefill x 1", "prefill-0 prefill 1 8100", "prefill-0 prefill -1 8100"})
    EXPECT_EQ(parse_workers(bad).error().code, Code::kInvalidArgument) << bad;  // 1 and -1 would be everybody's end
  EXPECT_FALSE(is_ours(1));
  EXPECT_EQ(read_workers("/nonexistent").error().code, Code::kNotFound);
}

}  // namespace
}  // namespace baton::stack
