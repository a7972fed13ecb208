// engine_loop MODEL [--threads N] [--streams N] [--context N] [--tokens N] [--structured schema|regex|grammar] [--logprobs N]
// [--temperature T] [--top-p P] [--top-k N] (greedy without): the engine's own loop, scheduler, sampler and token events included,
// HTTP not, on random prompts. Prints, for programs: "decode TOKENS_PER_S" of all decode steps together, which is what HTTP is held
// against; "step US" and "overhead US", the part of a step outside of the model, medians over these steps; and "overhead_mean US",
// which counts places of a grammar that were new, too.
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "base/prng.h"
#include "engine/constrain.h"
#include "engine/core.h"
#include "engine/engine.h"
#include "model/model.h"

using namespace baton;

namespace {

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double mean(const std::vector<double>& v) { return std::accumulate(v.begin(), v.end(), 0.0) / static_cast<double>(v.size()); }

double median(std::vector<double> v) {
  std::ranges::nth_element(v, v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2));
  return v[v.size() / 2];
}

// A model that knows how long its last step took.
class Timed final : public model::Model {
 public:
  explicit Timed(model::Model& m) : m_(m) {}
  const model::ModelConfig& config() const override { return m_.config(); }
  kv::KvLayout kv_layout() const override { return m_.kv_layout(); }
  Result<> bind_kv(std::span<std::byte> pool) override { return m_.bind_kv(pool); }
  Result<std::span<const float>> step(std::span<const model::SeqInput> seqs) override {
    const int64_t began = now_ns();
    auto out = m_.step(seqs);
    last_ns = now_ns() - began;
    return out;
  }
  std::span<const model::LogitPeak> peaks() const override { return m_.peaks(); }
  std::span<const float> hidden() const override { return m_.hidden(); }
  void share_out(int64_t n, const std::function<void(int64_t, int)>& f) override { m_.share_out(n, f); }
  int threads() const override { return m_.threads(); }
  std::string backend() const override { return m_.backend(); }
  size_t weight_bytes() const override { return m_.weight_bytes(); }
  std::string fingerprint() const override { return m_.fingerprint(); }
  int64_t last_ns = 0;

 private:
  model::Model& m_;
};

// What each answer must be; none of them ends within a measurement.
Result<grammar::Constraint> constraint_named(std::string_view name) {
  using Kind = grammar::Constraint::Kind;
  if (name == "schema") {
    return grammar::Constraint{.kind = Kind::kSchema,
                               .schema = *parse_json(R"({"type":"array","minItems":400,"items":{"type":"object",
      "properties":{"name":{"type":"string"},"age":{"type":"integer","minimum":0,"maximum":150},"town":{"enum":["Paris","Rome","Oslo"]},
      "tags":{"type":"array","items":{"type":"string"}}},"required":["name","age","town","tags"]}})")};
  }
  if (name == "regex")
    return grammar::Constraint{.kind = Kind::kRegex, .text = "([A-Z][a-z]{2,12} [0-9]{1,4}-[0-9]{2}-[0-9]{2}, ){400,}"};
  if (name == "grammar") {
    return grammar::Constraint{.kind = Kind::kGrammar, .text = R"g(root ::= (sum "\n"){400,}
      sum ::= product ([+-] product)*
      product ::= term ([*/] term)*
      term ::= [0-9]+ | [a-z]+ | "(" sum ")")g"};
  }
  return fail(Code::kInvalidArgument, "--structured is schema, regex or grammar");
}

struct LoopOptions {
  std::string path, structured;
  int threads = 0, streams = 16, context = 512, tokens = 64, logprobs = -1, top_k = 0;
  double temperature = 0, top_p = 1;
};

LoopOptions options_of(int argc, char** argv) {
  LoopOptions o;
  for (int i = 1; i < argc; ++i) {
    const std::pair<const char*, int*> numbers[] = {
        {"--threads", &o.threads}, {"--streams", &o.streams},   {"--context", &o.context},
        {"--tokens", &o.tokens},   {"--logprobs", &o.logprobs}, {"--top-k", &o.top_k}};
    const std::pair<const char*, double*> shares[] = {{"--temperature", &o.temperature}, {"--top-p", &o.top_p}};
    if (strcmp(argv[i], "--structured") == 0 && i + 1 < argc) {
      o.structured = argv[++i];
      continue;
    }
    const auto take = [&](const auto& flags, auto read) {
      for (const auto& [name, target] : flags) {
        if (strcmp(argv[i], name) != 0 || i + 1 == argc) continue;
        *target = read(argv[++i]);
        return true;
      }
      return false;
    };
    if (!take(numbers, std::atoi) && !take(shares, std::atof)) o.path = argv[i];
  }
  return o;
}

}  // namespace

int main(int argc, char** argv) {
  const LoopOptions o = options_of(argc, argv);
  if (o.path.empty() || o.streams < 1 || o.context < 1 || o.tokens < 3)
    return fprintf(stderr,
                   "usage: engine_loop MODEL [--threads N] [--streams N] [--context N] [--tokens N] [--structured "
                   "schema|regex|grammar] [--logprobs N] [--temperature T] [--top-p P] [--top-k N]\n"),
           2;
  engine::EngineConfig config;
  config.model = o.path, config.threads = o.threads;
  auto loaded = engine::load_parts(config, {});
  if (!loaded) return fprintf(stderr, "engine_loop: %s\n", loaded.error().message.c_str()), 1;
  Timed model(*loaded->model);
  engine::Constraint constraint;
  if (!o.structured.empty()) {
    const auto wanted = constraint_named(o.structured);
    auto compiled =
        wanted ? engine::Constraints(*loaded->tokenizer, model.config().vocab).get(*wanted) : std::unexpected(wanted.error());
    if (!compiled) return fprintf(stderr, "engine_loop: %s\n", compiled.error().message.c_str()), 1;
    constraint = *std::move(compiled);
  }
  const int32_t blocks = o.streams * ((o.context + o.tokens) / model.kv_layout().block_tokens + 1) + 2;
  constexpr size_t kHugePage = 2u << 20;
  const size_t bytes = (static_cast<size_t>(blocks) * model.kv_layout().block_bytes() + kHugePage - 1) / kHugePage * kHugePage;
  auto* pool = static_cast<std::byte*>(std::aligned_alloc(kHugePage, bytes));
  madvise(pool, bytes, MADV_HUGEPAGE);
  std::memset(pool, 0, bytes);
  if (auto bound = model.bind_kv({pool, bytes}); !bound)
    return fprintf(stderr, "engine_loop: %s\n", bound.error().message.c_str()), 1;
  Metrics metrics;
  engine::EngineMetrics em(metrics,
                           {.model_name = "bench", .max_model_len = o.context + o.tokens, .block_tokens = 16, .blocks = blocks});
  const SteadyClock clock;
  engine::Core core({.scheduler = {.max_model_len = o.context + o.tokens + 1}, .hash_root = kv::root_hash("bench")}, model,
                    kv::BlockPool(blocks, true), nullptr, em, clock);
  Prng prng(1);
  std::vector<std::shared_ptr<engine::TokenMailbox>> out;
  for (int i = 0; i < o.streams; ++i) {
    engine::Submission s;
    s.first_id = static_cast<uint64_t>(i) + 1;
    for (int k = 0; k < o.context; ++k)
      s.prompt.push_back(static_cast<int32_t>(prng.below(static_cast<uint64_t>(model.config().vocab))));
    s.sampling.temperature = o.temperature, s.sampling.top_p = o.top_p, s.sampling.top_k = o.top_k;
    s.sampling.seed = static_cast<uint64_t>(i);
    if (o.logprobs >= 0) s.logprobs = o.logprobs;
    s.max_tokens = o.tokens;
    s.constraint = constraint;
    if (constraint) s.end_ids = loaded->tokenizer->stop_ids();
    s.out = out.emplace_back(std::make_shared<engine::TokenMailbox>());
    core.submit(std::move(s));
  }
  const auto tokens_out = [&] { return static_cast<int>(em.generation_tokens.value()); };
  while (tokens_out() < o.streams) core.step();  // the last prompt is read: from here on, steps are decodes
  std::vector<double> steps, overheads;
  for (int before = tokens_out(); !core.idle(); before = tokens_out()) {
    const int64_t began = now_ns();
    core.step();
    const int64_t took = now_ns() - began;
    if (tokens_out() - before != o.streams) continue;  // not everybody's any more
    steps.push_back(static_cast<double>(took) / 1e3);
    overheads.push_back(static_cast<double>(took - model.last_ns) / 1e3);
  }
  if (steps.empty()) return fprintf(stderr, "engine_loop: more --tokens are needed for a step of all streams\n"), 1;
  printf("decode %.1f\nstep %.1f\noverhead %.1f\noverhead_mean %.1f\n", o.streams * 1e6 / mean(steps), median(steps),
         median(overheads), mean(overheads));
  std::free(pool);
}
