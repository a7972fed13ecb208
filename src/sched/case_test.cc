// Runs the scheduler scripts of tests/cases/sched; README.md there says how to write one.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "base/prng.h"
#include "sched/fake_model.h"
#include "sched/scheduler.h"

namespace baton::sched {
namespace {

namespace fs = std::filesystem;

struct Line {
  std::vector<std::string> words;  // before "->"
  std::string expected;            // after it
  bool expects = false;

  bool has(std::string_view flag) const { return std::ranges::find(words, flag) != words.end(); }
  std::optional<std::string> text(std::string_view key) const {
    for (const std::string& word : words) {
      if (word.starts_with(key) && word[key.size()] == '=') return word.substr(key.size() + 1);
    }
    return std::nullopt;
  }
  int32_t number(std::string_view key, int32_t otherwise) const {
    auto value = text(key);
    return value ? std::stoi(*value) : otherwise;
  }
};

class Script {
 public:
  void run(const fs::path& path) {
    std::ifstream file(path);
    ASSERT_TRUE(file) << path;
    std::string text;
    for (int number = 1; std::getline(file, text); ++number) {
      Line line = parse(text);
      if (line.words.empty()) continue;
      SCOPED_TRACE(testing::Message() << path.filename().string() << ":" << number << ": " << text);
      execute(line);
      if (testing::Test::HasFailure()) return;
    }
  }

 private:
  static Line parse(const std::string& text) {
    Line line;
    std::istringstream in(text.substr(0, text.find('#')));
    for (std::string word; in >> word;) {
      if (word == "->") {
        line.expects = true;
      } else if (line.expects) {
        line.expected += (line.expected.empty() ? "" : " ") + word;
      } else {
        line.words.push_back(word);
      }
    }
    return line;
  }

  void execute(const Line& line) {
    const std::string& verb = line.words[0];
    std::string got;
    if (verb == "config") {
      configure(line);
    } else if (verb == "add") {
      got = add(line);
    } else if (verb == "step") {
      got = plan();
      commit();
    } else if (verb == "plan") {
      got = plan();
    } else if (verb == "commit") {
      commit();
    } else if (verb == "run") {
      for (int i = std::stoi(line.words.at(1)); i > 0; --i) plan(), commit();
    } else if (verb == "remote") {
      std::optional<int32_t> first;
      if (line.has("first")) first = 1;
      got = scheduler_->remote_done(id(line.words.at(1)), line.number("valid", 0), first) ? "taken" : "ignored";
    } else if (verb == "finish") {
      scheduler_->finish(id(line.words.at(1)));
    } else if (verb == "abort") {
      scheduler_->abort(id(line.words.at(1)));
    } else if (verb == "draft") {
      draft(line);
    } else if (verb == "pin") {
      scheduler_->pin(id(line.words.at(1)));
    } else if (verb == "release") {
      scheduler_->release_retained(id(line.words.at(1)));
    } else if (verb == "reset") {
      got = scheduler_->reset_prefix_cache() ? "done" : "busy";
    } else if (verb == "expect") {
      for (size_t i = 1; i < line.words.size(); ++i) expect(line, i);
    } else {
      FAIL() << "unknown verb " << verb;
    }
    if (line.expects) EXPECT_EQ(got, line.expected);
  }

  void configure(const Line& line) {
    SchedulerConfig c;
    c.block_tokens = line.number("block_tokens", 16);
    c.max_num_batched_tokens = line.number("budget", 1024);
    c.max_num_seqs = line.number("seqs", 16);
    c.max_model_len = line.number("model_len", 4096);
    c.long_prefill_token_threshold = line.number("threshold", 0);
    c.chunked_prefill = !line.has("whole_prompts");
    c.priority_policy = line.has("priority");
    c.max_loras = line.number("loras", 1);
    kv::BlockPool pool(line.number("blocks", 100) + 1, !line.has("no_cache"));
    scheduler_ = std::make_unique<Scheduler>(c, std::move(pool), kv::root_hash("case"));
  }

  RequestId id(const std::string& name) { return ids_.try_emplace(name, ids_.size() + 1).first->second; }
  std::string name(RequestId wanted) const {
    for (auto& [name, id] : ids_) {
      if (id == wanted) return name;
    }
    return "?";
  }

  // Each name has its own endless stream of tokens; like=b:32 takes the first 32 from b's.
  std::string add(const Line& line) {
    NewRequest r;
    const std::string& who = line.words.at(1);
    r.id = id(who);
    std::string other = line.text("like").value_or(who + ":0");
    size_t colon = other.find(':');
    RequestId like = id(other.substr(0, colon));
    int32_t length = line.number("prompt", 1);
    int32_t shared = colon == std::string::npos ? length : std::stoi(other.substr(colon + 1));
    for (int32_t i = 0; i < length; ++i) {
      r.prompt.push_back(static_cast<int32_t>(Prng::at(i < shared ? like : r.id, static_cast<uint64_t>(i)) % kFakeVocab));
    }
    r.max_tokens = line.number("max", 16);
    r.priority = line.number("priority", 0);
    r.arrival = line.number("arrival", 0);
    r.remote_tokens = line.number("remote", 0);
    r.cache_salt = line.text("salt").value_or("");
    if (const auto name = line.text("lora")) {
      auto& adapter = adapters_[*name];
      if (!adapter) adapter = std::make_shared<kv::Adapter>(kv::Adapter{.id = static_cast<int32_t>(adapters_.size()), .name = *name, .digest = {}});
      r.adapter = adapter;
    }
    r.retain_on_finish = line.has("retain");
    r.skip_prefix_lookup = line.has("skip_lookup");
    r.remote_computing = line.has("computing");
    r.chunk_tokens = line.number("chunk", 0);
    auto added = scheduler_->add(std::move(r));
    return added ? "ok" : std::string(code_name(added.error().code));
  }

  // draft a 3 right=2: the first two of three are what the answer goes on with.
  void draft(const Line& line) {
    auto view = scheduler_->view(id(line.words.at(1)));
    ASSERT_TRUE(view);
    const int32_t n = std::stoi(line.words.at(2));
    auto drafts = fake_answer({view->tokens.begin(), view->tokens.end()}, static_cast<size_t>(n));
    for (int32_t i = line.number("right", n); i < n; ++i) ++drafts[static_cast<size_t>(i)];
    scheduler_->propose(id(line.words.at(1)), drafts);
  }

  // "a:0+32 b:40+1* fetch c:16+17 preempt d exhausted e", or "nothing"
  std::string plan() {
    bool work = scheduler_->has_work();
    plan_ = scheduler_->plan();
    std::string out;
    auto say = [&](const std::string& text) { out += (out.empty() ? "" : " ") + text; };
    for (const ScheduledSeq& s : plan_.seqs) {
      std::string drafts = s.n_drafts > 0 ? cat("+", s.n_drafts) : "";
      say(cat(name(s.id), ":", s.first_position, "+", s.n_tokens - s.n_drafts, drafts, s.samples ? "*" : ""));
    }
    for (const RemoteFetch& f : plan_.fetches) say(cat("fetch ", name(f.id), ":", f.first_token, "+", f.n_tokens));
    for (RequestId r : plan_.preempted) say("preempt " + name(r));
    for (RequestId r : plan_.exhausted) say("exhausted " + name(r));
    EXPECT_TRUE(!work || !out.empty()) << "has_work() was true";
    return out.empty() ? "nothing" : out;
  }

  void commit() {
    std::vector<int32_t> sampled, counts;
    for (const ScheduledSeq& s : plan_.seqs) {
      if (!s.samples) continue;
      auto view = scheduler_->view(s.id);
      auto answer = fake_answer(view ? std::vector<int32_t>(view->tokens.begin(), view->tokens.end()) : std::vector<int32_t>{0},
                                static_cast<size_t>(s.n_drafts) + 1);
      auto [wrong, right] = std::ranges::mismatch(s.drafts, answer);
      answer.erase(right + 1, answer.end());
      sampled.insert(sampled.end(), answer.begin(), answer.end());
      counts.push_back(static_cast<int32_t>(answer.size()));
    }
    scheduler_->commit(plan_, sampled, counts);
    plan_ = {};
  }

  static std::string state_name(State s) {
    constexpr const char* kNames[] = {"waiting", "remote", "running", "preempted", "finished"};
    return kNames[static_cast<size_t>(s)];
  }

  std::string fact_of_scheduler(const std::string& key) const {
    const Scheduler& s = *scheduler_;
    if (key == "free") return cat(s.pool().available());
    if (key == "cached") return cat(s.pool().cached());
    if (key == "running") return cat(s.num_running());
    if (key == "waiting") return cat(s.num_waiting());
    if (key == "remote") return cat(s.num_waiting_remote());
    if (key == "lora_waiting") return cat(s.num_waiting_adapter());
    if (key == "loras") return loras();
    if (key == "retained") return cat(s.num_retained_blocks());
    if (key == "preemptions") return cat(s.preemptions());
    if (key == "queries") return cat(s.prefix_queries());
    if (key == "hits") return cat(s.prefix_hits());
    if (key == "work") return s.has_work() ? "yes" : "no";
    return "unknown fact " + key;
  }

  // "x:1/2,y:0/1": waiting and active requests of each adapter that somebody wants; "none"
  std::string loras() const {
    std::string out;
    for (const auto& [id, use] : scheduler_->adapters()) out += cat(out.empty() ? "" : ",", use.adapter->name, ":", use.waiting, "/", use.active);
    return out.empty() ? "none" : out;
  }

  std::string fact_of_request(const RequestView& v, const std::string& key) const {
    if (key == "state") return state_name(v.state);
    if (key == "computed") return cat(v.num_computed);
    if (key == "output") return cat(v.num_output);
    if (key == "cached") return cat(v.num_cached);
    if (key == "external") return cat(v.num_external);
    if (key == "preemptions") return cat(v.num_preemptions);
    if (key == "blocks") return cat(v.blocks.size());
    return "unknown fact " + key;
  }

  // expect free=7 work=no          facts of the scheduler
  // expect a state=running ...     facts of a request; "expect a gone"
  void expect(const Line& line, size_t i) {
    const std::string& word = line.words[i];
    size_t equals = word.find('=');
    bool about_request = line.words[1].find('=') == std::string::npos;
    if (about_request && i == 1) return;
    auto view = about_request ? scheduler_->view(id(line.words[1])) : std::nullopt;
    if (word == "gone") {
      EXPECT_FALSE(view);
      return;
    }
    ASSERT_NE(equals, std::string::npos) << "expected key=value, got " << word;
    ASSERT_TRUE(!about_request || view) << line.words[1] << " is gone";
    std::string key = word.substr(0, equals);
    EXPECT_EQ(about_request ? fact_of_request(*view, key) : fact_of_scheduler(key), word.substr(equals + 1)) << key;
  }

  std::unique_ptr<Scheduler> scheduler_;
  std::map<std::string, RequestId> ids_;
  std::map<std::string, std::shared_ptr<const kv::Adapter>> adapters_;
  StepPlan plan_;
};

std::vector<fs::path> case_files() {
  std::vector<fs::path> out;
  for (auto& entry : fs::directory_iterator(fs::path(BATON_SOURCE_DIR) / "tests/cases/sched")) {
    if (entry.path().extension() == ".case") out.push_back(entry.path());
  }
  std::ranges::sort(out);
  return out;
}

class SchedulerCase : public testing::TestWithParam<fs::path> {};

TEST_P(SchedulerCase, Runs) {
  Script script;
  script.run(GetParam());
}

INSTANTIATE_TEST_SUITE_P(Cases, SchedulerCase, testing::ValuesIn(case_files()),
                         [](const auto& file) { return file.param.stem().string(); });

}  // namespace
}  // namespace baton::sched
