#include "picker/token_source.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <list>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "base/clock.h"
#include "base/log.h"
#include "base/prng.h"
#include "net/http.h"
#include "net/tls.h"
#include "net/url.h"
#include "picker/body_blocks.h"
#include "picker/limits.h"
#include "picker/local_tokenizer.h"
#include "wire/splice.h"

namespace baton::picker {
namespace {

// How an ask ended, as the counter's label says it.
std::string_view outcome_of(Code code) {
  switch (code) {
    case Code::kOk:
      return "ok";
    case Code::kDeadlineExceeded:
      return "timeout";
    case Code::kResourceExhausted:
      return "busy";
    case Code::kUnimplemented:
      return "unsupported";
    case Code::kNotFound:
      return "no_tokenizer";
    case Code::kUnavailable:
      return "unavailable";
    case Code::kCancelled:
      return "cancelled";
    default:
      return "failed";
  }
}

struct Job {
  TokenAsk ask;
  uint64_t key = 0;
  int64_t begin_ms = 0;
  std::atomic<bool> settled{false};
  TokenSource::Done done;
  net::Cancel cancel;  // of the call; on the I/O thread
};
using JobPtr = std::shared_ptr<Job>;

// Whole prompts asked before; the one not used longest goes.
class AnswerCache {
 public:
  TokenSource::Found find(uint64_t key) {
    const std::lock_guard lock(mutex_);
    const auto at = by_key_.find(key);
    if (at == by_key_.end()) return nullptr;
    order_.splice(order_.begin(), order_, at->second);
    return at->second->second;
  }
  void keep(uint64_t key, TokenSource::Found found) {
    const std::lock_guard lock(mutex_);
    if (found->ids.size() > kTokensKeptMax / 4 || by_key_.contains(key)) return;
    tokens_ += found->ids.size() + kEntryTokens;
    order_.emplace_front(key, std::move(found));
    by_key_[key] = order_.begin();
    while (tokens_ > kTokensKeptMax) {
      tokens_ -= order_.back().second->ids.size() + kEntryTokens;
      by_key_.erase(order_.back().first);
      order_.pop_back();
    }
  }

 private:
  static constexpr size_t kEntryTokens = 48;  // what an entry takes beside its ids, in their size
  std::mutex mutex_;
  std::list<std::pair<uint64_t, TokenSource::Found>> order_;
  std::unordered_map<uint64_t, decltype(order_)::iterator> by_key_;
  size_t tokens_ = 0;
};

// The tokenizers of the models asked for, loaded when first needed. A file that cannot be used is tried again later.
class Tokenizers {
 public:
  explicit Tokenizers(const route::TokenParams& params) : params_(params) {}
  Result<std::shared_ptr<const LocalTokenizer>> get(const std::string& model, int64_t now_ms) {
    const std::lock_guard lock(mutex_);
    Entry& entry = entries_[slot(model)];
    if (entry.tokenizer) return entry.tokenizer;
    if (entry.tried_ms >= 0 && now_ms - entry.tried_ms < kTokenizerRetryMs)
      return fail(Code::kNotFound, "no tokenizer for ", model);
    entry.tried_ms = now_ms;
    const std::string path = path_of(model);
    if (path.empty()) return fail(Code::kNotFound, "no tokenizer for ", model);
    auto loaded = LocalTokenizer::load(path);
    if (!loaded) {
      log_warn("a tokenizer cannot be used; prompts are matched approximately", "model={} error=\"{}\"", model,
               loaded.error().message);
      return fail(Code::kNotFound, loaded.error().message);
    }
    log_info("tokenizer loaded", "model={} path={}", model, path);
    return entry.tokenizer = *std::move(loaded);
  }

 private:
  struct Entry {
    std::shared_ptr<const LocalTokenizer> tokenizer;
    int64_t tried_ms = -1;
  };
  // Models that have no file of their own share one; invented names beyond the limit share another, which has none.
  std::string slot(const std::string& model) const {
    if (named(model) == nullptr && !params_.path.empty()) return "";
    return entries_.contains(model) || entries_.size() < kTokenizersMax ? model : std::string("\n");
  }
  const std::string* named(const std::string& model) const {
    const auto at = std::ranges::find(params_.paths, model, [](const auto& p) { return p.first; });
    return at == params_.paths.end() ? nullptr : &at->second;
  }
  std::string path_of(const std::string& model) const {
    if (const std::string* path = named(model)) return *path;
    if (!params_.path.empty()) return params_.path;
    return in_directory(model);
  }
  // directory/<org>/<name>/tokenizer.json, or a Hugging Face cache: directory/models--<org>--<name>/snapshots/*/tokenizer.json.
  std::string in_directory(const std::string& model) const {
    namespace fs = std::filesystem;
    const bool safe = !model.empty() && model.size() < 256 && model.front() != '/' && model.find("..") == std::string::npos &&
                      model.find('\0') == std::string::npos && model.find('\\') == std::string::npos;
    if (params_.directory.empty() || !safe) return {};
    std::error_code error;
    const fs::path own = fs::path(params_.directory) / model / params_.file_name;
    if (fs::is_regular_file(own, error)) return own.string();
    std::string flat = "models--";
    for (const char c : model) flat += c == '/' ? "--" : std::string(1, c);
    for (const auto& snapshot : fs::directory_iterator(fs::path(params_.directory) / flat / "snapshots", error)) {
      const fs::path file = snapshot.path() / params_.file_name;
      if (std::error_code e; fs::is_regular_file(file, e)) return file.string();
    }
    return {};
  }

  const route::TokenParams& params_;
  std::mutex mutex_;  // held while one loads: the others would do the same
  std::map<std::string, Entry> entries_;
};

}  // namespace

struct TokenSource::Impl {
  Impl(route::TokenParams p, size_t max, std::function<std::optional<Address>()> w, Metrics& m)
      : params(std::move(p)), tokens_max(max), worker(std::move(w)), metrics(m), tokenizers(params) {
    seconds = &m.histogram("llm_d_epp_tokenizer_duration_seconds", "time until a prompt's tokens were known, or not to be had",
                           {.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2.5, 5});
    if (params.kind != route::TokenParams::Kind::kLocal) {
      prepare_calls();
      return;
    }
    for (int64_t i = 0; i < std::clamp<int64_t>(params.workers, 1, kTokenizerThreadsMax); ++i)
      threads.emplace_back([this] { work(); });
  }

  void prepare_calls() {
    if (params.kind == route::TokenParams::Kind::kWorkers) return;
    auto parsed = net::parse_url(params.url);
    if (!parsed) {
      log_error("the render service cannot be asked", "error=\"{}\"", parsed.error().message);
      return;
    }
    url = *std::move(parsed);
    while (url->path.ends_with('/')) url->path.pop_back();
    if (!url->tls) return;
    if (auto made = net::TlsClient::make({})) tls = *std::move(made);
  }

  int64_t timeout_ms(const Job& job) const {
    if (params.kind == route::TokenParams::Kind::kLocal) return params.local_timeout_ms;
    return job.ask.media ? params.media_timeout_ms : params.timeout_ms;
  }

  void count(std::string_view outcome) {
    metrics
        .counter("llm_d_epp_tokenizer_requests", "prompts whose tokens were wanted, by what came of it",
                 {{"outcome", std::string(outcome)}})
        .inc();
  }

  void settle(Job& job, Result<Found> result) {
    if (job.settled.exchange(true)) return;
    waiting.fetch_sub(1, std::memory_order_relaxed);
    waiting_bytes.fetch_sub(job.ask.body.size(), std::memory_order_relaxed);
    const Code code = result ? Code::kOk : result.error().code;
    count(outcome_of(code));
    seconds->observe(static_cast<double>(clock.now_ms() - job.begin_ms) * 1e-3);
    if (result) {
      cache.keep(job.key, *result);
    } else if (int64_t last = warned_ms.load();
               clock.now_ms() - last >= kTokenizerWarnMs && warned_ms.compare_exchange_strong(last, clock.now_ms())) {
      log_warn("a prompt's tokens are not known; it is matched approximately", "outcome={} error=\"{}\"", outcome_of(code),
               result.error().message);
    }
    job.done(std::move(result));
  }

  void ask(TokenAsk given, Done done) {
    auto job = std::make_shared<Job>();
    job->begin_ms = clock.now_ms();
    const std::string_view path = given.shape == Shape::kChat ? "c" : "p";
    job->key = mix_chain(block_id(given.body.data(), given.body.size()),
                         mix_chain(block_id(path.data(), 1), block_id(given.model.data(), given.model.size())));
    if (auto known = cache.find(job->key)) {
      count("cached");
      return done(std::move(known));
    }
    job->ask = std::move(given);
    job->done = std::move(done);
    const bool busy = waiting.fetch_add(1, std::memory_order_relaxed) >= kTokenizerWaitingMax;
    const size_t bytes = job->ask.body.size();
    const bool full = waiting_bytes.fetch_add(bytes, std::memory_order_relaxed) + bytes > kTokenizerWaitingBytesMax;
    if (busy || full) return settle(*job, fail(Code::kResourceExhausted, "too many prompts wait for the tokenizer"));
    if (!watch(job)) return settle(*job, fail(Code::kCancelled, "shutting down"));
    if (params.kind == route::TokenParams::Kind::kLocal) {
      {
        const std::lock_guard lock(mutex);
        queue.push_back(job);
      }
      wake.notify_one();
    } else {
      io.spawn([this, job] { return call(job); });
    }
  }

  // ---- timeouts: one task while anything waits
  bool watch(const JobPtr& job) {  // false: stopping
    bool start = false;
    {
      const std::lock_guard lock(mutex);
      if (stopping) return false;
      start = deadlines.empty();
      deadlines.emplace(clock.now_ms() + timeout_ms(*job), job);
    }
    if (start) io.spawn([this] { return expire(); });
    return true;
  }
  net::Task<> expire() {
    for (;;) {
      std::vector<JobPtr> due;
      int64_t next_ms = 0;
      {
        const std::lock_guard lock(mutex);
        const int64_t now = clock.now_ms();
        while (!deadlines.empty() && (stopping || deadlines.begin()->first <= now || deadlines.begin()->second.expired())) {
          if (JobPtr job = deadlines.begin()->second.lock()) due.push_back(std::move(job));
          deadlines.erase(deadlines.begin());
        }
        next_ms = deadlines.empty() ? 0 : std::clamp<int64_t>(deadlines.begin()->first - now, 1, kTokenizerTickMs);
      }
      for (const JobPtr& job : due) {
        if (job->settled) continue;
        settle(*job, fail(stopping ? Code::kCancelled : Code::kDeadlineExceeded, "the tokenizer did not answer in ",
                          timeout_ms(*job), " ms"));
        job->cancel.cancel();
      }
      due.clear();
      if (next_ms == 0) co_return;
      co_await net::sleep_for(net::Millis(next_ms));
    }
  }

  // ---- in this process
  void work() {
    for (;;) {
      JobPtr job;
      {
        std::unique_lock lock(mutex);
        wake.wait(lock, [this] { return stopping || !queue.empty(); });
        if (stopping) return;
        job = std::move(queue.front());
        queue.pop_front();
      }
      if (job->settled) continue;
      settle(*job, local(job->ask));
    }
  }
  Result<Found> local(const TokenAsk& asked) {
    if (asked.media) return fail(Code::kUnimplemented, "the prompt has media");
    BATON_TRY(const auto tokenizer, tokenizers.get(params.model.empty() ? asked.model : params.model, clock.now_ms()));
    BATON_TRY(PromptTokens tokens, tokenizer->tokens(asked.shape, asked.body, tokens_max));
    return std::make_shared<const PromptTokens>(std::move(tokens));
  }

  // ---- somewhere else
  net::Task<> call(JobPtr job) {
    if (!client) client = std::make_unique<net::Client>(kTokenizerConnectionsMax);
    auto answer = co_await answer_of(*job);
    settle(*job, std::move(answer));
  }
  net::Task<Result<Found>> answer_of(Job& job) {
    Address at;
    if (params.kind == route::TokenParams::Kind::kWorkers) {
      const auto found = worker();
      if (!found) co_return fail(Code::kUnavailable, "no worker to ask");
      at = *found;
    } else if (url) {
      at = {url->host, url->port};
    } else {
      co_return fail(Code::kUnavailable, params.url, " is no URL");
    }
    std::string body = std::move(job.ask.body);
    waiting_bytes.fetch_sub(body.size(), std::memory_order_relaxed);
    if (!params.model.empty() && params.model != job.ask.model) {
      const auto root = parse_json(body);
      if (root && root->is_object()) body = wire::Splice(body, *root).set({"model"}, json_string(params.model)).text();
    }
    const std::string prefix = url ? url->path : std::string();
    const std::string_view routes[] = {job.ask.shape == Shape::kChat ? "/v1/chat/completions/render" : "/v1/completions/render",
                                       "/tokenize"};
    for (size_t i = no_render ? 1 : 0; i < 2; ++i) {
      if (i == 1 && job.ask.media) co_return fail(Code::kUnimplemented, "/tokenize does not say what stands for media");
      net::Call call;
      call.host = at.host;
      call.port = at.port;
      call.tls = tls;
      call.method = "POST";
      call.target = cat(prefix, routes[i]);
      call.headers.set("Content-Type", "application/json");
      call.body = body;
      call.cancel = &job.cancel;
      call.connect_timeout = net::Millis(std::min<int64_t>(2'000, timeout_ms(job)));
      call.first_byte_timeout = call.idle_timeout = net::Millis(timeout_ms(job));
      call.body_bytes_max = kTokensAnswerBytesMax;
      const auto answer = co_await client->fetch(std::move(call));
      if (!answer) co_return std::unexpected(answer.error());
      if (answer->status == 404 || answer->status == 405) {
        if (i == 0) no_render = true;  // an engine without the route: not asked for it again
        continue;
      }
      if (answer->status != 200) co_return fail(Code::kInternal, routes[i], " answered ", answer->status);
      auto tokens = read_tokens_answer(answer->body);
      if (!tokens) co_return within(std::string(routes[i]), tokens.error());
      co_return std::make_shared<const PromptTokens>(*std::move(tokens));
    }
    co_return fail(Code::kNotFound, "neither ", routes[0], " nor /tokenize is served at ", at.host, ":", at.port);
  }

  void stop() {
    {
      const std::lock_guard lock(mutex);
      if (stopping.exchange(true)) return;
    }
    wake.notify_all();
    for (std::thread& thread : threads) thread.join();
    io.stop();
    std::multimap<int64_t, std::weak_ptr<Job>> left;
    {
      const std::lock_guard lock(mutex);
      left.swap(deadlines);
    }
    for (const auto& [at, weak] : left) {
      if (const JobPtr job = weak.lock()) settle(*job, fail(Code::kCancelled, "shutting down"));
    }
  }

  const route::TokenParams params;
  const size_t tokens_max;
  const std::function<std::optional<Address>()> worker;
  Metrics& metrics;
  Histogram* seconds = nullptr;
  const SteadyClock clock{};
  AnswerCache cache;
  Tokenizers tokenizers;
  std::optional<net::Url> url;
  std::shared_ptr<net::TlsClient> tls;
  std::atomic<bool> stopping{false}, no_render{false};
  std::atomic<size_t> waiting{0}, waiting_bytes{0};
  std::atomic<int64_t> warned_ms{-kTokenizerWarnMs};
  std::mutex mutex;  // of queue and deadlines
  std::condition_variable wake;
  std::deque<JobPtr> queue;
  std::multimap<int64_t, std::weak_ptr<Job>> deadlines;
  std::vector<std::thread> threads;
  net::IoThread io;
  std::unique_ptr<net::Client> client;  // io's
};

TokenSource::TokenSource(route::TokenParams params, size_t tokens_max, std::function<std::optional<Address>()> worker,
                         Metrics& metrics)
    : impl_(std::make_unique<Impl>(std::move(params), tokens_max, std::move(worker), metrics)) {}
TokenSource::~TokenSource() { stop(); }
void TokenSource::ask(TokenAsk ask, Done done) { impl_->ask(std::move(ask), std::move(done)); }
void TokenSource::stop() { impl_->stop(); }

}  // namespace baton::picker
