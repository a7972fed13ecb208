// model_bench MODEL [--threads N] [--isa ISA] [--pin] [--kv-cache-dtype D] [--point bandwidth|decode,BATCH,CONTEXT|prefill,TOKENS]...:
// speed of the model alone, without server or scheduler. Points print one line each, for programs: "decode,16,512 1020.3", tokens
// (bandwidth: bytes) per second; bandwidth is that of reading as many bytes as the weights have.
// Prints value, unit, reference and ratio. The reference of decode is the memory bandwidth measured here by the same threads; of
// prefill and batched decode the goals of facts/engine.md 5.3, set for SmolLM2-135M Q4_1 on two cores.
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "base/prng.h"
#include "model/model.h"
#include "tensor/threads.h"

using namespace baton;

namespace {

double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Best of `rounds` runs of f, in seconds: neighbours on the machine only ever slow a run down.
template <class F>
double best_s(int rounds, F f) {
  double best = 1e9;
  for (int i = 0; i < rounds; ++i) {
    const double start = now_s();
    f();
    best = std::min(best, now_s() - start);
  }
  return best;
}

void row(const char* what, double value, const char* unit, double reference, const char* reference_is) {
  printf("%-28s %9.1f %-6s  %9.1f %-30s %5.2f\n", what, value, unit, reference, reference_is, value / reference);
}

// Bytes per second that `threads` read from a buffer of the size of the weights, over and over: what decode at batch 1 can reach
// at most.
double read_bandwidth(int threads, bool pin, size_t bytes) {
  using Words = uint64_t __attribute__((vector_size(64), aligned(8)));
  std::vector<uint64_t> data(bytes / 8, 1);
  tensor::ThreadPool pool(threads, pin);
  std::vector<uint64_t> sums(static_cast<size_t>(pool.size()) * 8);
  const double s = best_s(20, [&] {
    pool.run([&](tensor::ThreadPool::Member& member) {
      member.split(
          static_cast<int64_t>(data.size()),
          [&](tensor::Share part) {
            Words total[4] = {};
            for (int64_t i = part.begin; i + 32 <= part.end; i += 32)
              for (int k = 0; k < 4; ++k) total[k] += *reinterpret_cast<const Words*>(data.data() + i + k * 8);
            sums[static_cast<size_t>(member.index()) * 8] += (total[0] + total[1] + total[2] + total[3])[0];
          },
          32);
    });
  });
  return static_cast<double>(bytes) / s;
}

struct Bench {
  model::Model& m;
  int32_t blocks_each;
  std::vector<std::vector<int32_t>> tables;
  Prng prng{42};

  std::vector<int32_t> tokens(int n) {
    std::vector<int32_t> out;
    for (int i = 0; i < n; ++i) out.push_back(static_cast<int32_t>(prng.below(m.config().vocab)));
    return out;
  }
  void run(std::span<const model::SeqInput> seqs) {
    if (auto out = m.step(seqs); !out) fprintf(stderr, "model_bench: %s\n", out.error().message.c_str()), exit(1);
  }
  double prefill_s(int n) {
    const std::vector<int32_t> prompt = tokens(n);
    return best_s(3, [&] { run({{{.tokens = prompt, .blocks = tables[0], .last_logits = true}}}); });
  }
  // Seconds a step of `batch` sequences, each at about `context` tokens.
  double decode_s(int batch, int context, int steps) {
    const std::vector<int32_t> prompt = tokens(context);
    for (int b = 0; b < batch; ++b) run({{{.tokens = prompt, .blocks = tables[b]}}});
    const std::vector<int32_t> next = tokens(batch);
    return best_s(4,
                  [&] {
                    for (int i = 0; i < steps; ++i) {
                      std::vector<model::SeqInput> seqs;
                      for (int b = 0; b < batch; ++b)
                        seqs.push_back({.tokens = std::span(next).subspan(b, 1),
                                        .first_position = context + i,
                                        .blocks = tables[b],
                                        .last_logits = true});
                      run(seqs);
                    }
                  }) /
           steps;
  }
};

// "decode,16,512" to its value; kBatch sequences of at most kContextMax tokens fit.
constexpr int kBatch = 32, kContextMax = 2064;
bool measure_point(Bench& bench, const std::string& point, const model::LoadOptions& options) {
  int batch = 0, n = 0;
  double value = 0;
  if (point == "bandwidth") {
    value = read_bandwidth(options.threads, options.pin_threads, bench.m.weight_bytes());
  } else if (sscanf(point.c_str(), "decode,%d,%d", &batch, &n) == 2 && batch > 0 && batch <= kBatch && n > 0 && n + 20 <= kContextMax) {
    value = batch / bench.decode_s(batch, n, 20);
  } else if (sscanf(point.c_str(), "prefill,%d", &n) == 1 && n > 0 && n <= kContextMax) {
    value = n / bench.prefill_s(n);
  } else {
    return fprintf(stderr, "model_bench: no such point: %s\n", point.c_str()), false;
  }
  printf("%s %.1f\n", point.c_str(), value);
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  model::LoadOptions options;
  std::string path;
  std::vector<std::string> points;
  for (int i = 1; i < argc; ++i) {
    if (!strcmp(argv[i], "--threads") && i + 1 < argc)
      options.threads = std::atoi(argv[++i]);
    else if (!strcmp(argv[i], "--isa") && i + 1 < argc)
      options.isa = argv[++i];
    else if (const kv::CacheDtype* cache = nullptr; !strcmp(argv[i], "--kv-cache-dtype") && i + 1 < argc &&
                                                    (cache = kv::find_cache_dtype(argv[i + 1])) != nullptr)
      options.kv_dtype = cache->dtype, ++i;
    else if (!strcmp(argv[i], "--point") && i + 1 < argc)
      points.emplace_back(argv[++i]);
    else if (!strcmp(argv[i], "--pin"))
      options.pin_threads = true;
    else
      path = argv[i];
  }
  if (path.empty()) return fprintf(stderr, "usage: model_bench MODEL [--threads N] [--isa auto|avx512|avx2|plain] [--pin]\n"), 2;
  const double start = now_s();
  auto loaded = model::Model::load(path, options);
  if (!loaded) return fprintf(stderr, "model_bench: %s\n", loaded.error().message.c_str()), 1;
  model::Model& m = **loaded;
  printf("%s: %s, %.1f MB a token, loaded in %.2f s\n", m.config().name.c_str(), m.backend().c_str(),
         static_cast<double>(m.weight_bytes()) / 1e6, now_s() - start);

  Bench bench{.m = m, .blocks_each = kContextMax / m.kv_layout().block_tokens, .tables = {}};
  const size_t bytes = m.kv_layout().block_bytes() * kBatch * static_cast<size_t>(bench.blocks_each);
  constexpr size_t kHugePage = 2u << 20;
  auto* pool = static_cast<std::byte*>(std::aligned_alloc(kHugePage, (bytes + kHugePage - 1) / kHugePage * kHugePage));
  madvise(pool, bytes, MADV_HUGEPAGE);  // as the engine does: a tile is 2 KiB, so small pages would cost a TLB miss each
  std::memset(pool, 0, bytes);
  if (auto bound = m.bind_kv({pool, bytes}); !bound)
    return fprintf(stderr, "model_bench: %s\n", bound.error().message.c_str()), 1;
  for (int b = 0; b < kBatch; ++b) {
    bench.tables.emplace_back();
    for (int i = 0; i < bench.blocks_each; ++i) bench.tables.back().push_back(b * bench.blocks_each + i);
  }

  if (!points.empty()) {
    printf("weights %zu\nkv %zu\n", m.weight_bytes(), m.kv_layout().token_bytes());
    const bool all = std::ranges::all_of(points, [&](const std::string& point) { return measure_point(bench, point, options); });
    std::free(pool);
    return all ? 0 : 2;
  }
  const double bandwidth = read_bandwidth(options.threads, options.pin_threads, m.weight_bytes());
  const double weights = static_cast<double>(m.weight_bytes());
  printf("%-28s %9s %-6s  %9s %-30s %5s\n", "what", "value", "unit", "reference", "", "ratio");
  row("read bandwidth", bandwidth / 1e9, "GB/s", bandwidth / 1e9, "(measured, size of the weights)");
  for (const int context : {32, 1024}) {
    const double s = bench.decode_s(1, context, 50);
    const double kv = static_cast<double>(m.kv_layout().token_bytes()) * context;
    row(context == 32 ? "decode, batch 1, ctx 32" : "decode, batch 1, ctx 1024", 1 / s, "tok/s", bandwidth / (weights + kv),
        "bandwidth / bytes a token");
  }
  row("decode, batch 4, ctx 128", 4 / bench.decode_s(4, 128, 20), "tok/s", 1000, "(prototype's linear layers)");
  for (const int context : {128, 1024})
    row(cat("decode, batch 16, ctx ", context).c_str(), 16 / bench.decode_s(16, context, 20), "tok/s", 1200, "(goal)");
  for (const int n : {128, 512, 2000}) row(cat("prefill ", n).c_str(), n / bench.prefill_s(n), "tok/s", 2000, "(goal at 512)");
  std::free(pool);
}
