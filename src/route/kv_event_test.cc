#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/prng.h"
#include "route/kv_event_codec.h"
#include "route/kv_event_index.h"
#include "route/kv_event_keys.h"

namespace baton::route {
namespace {

std::vector<uint32_t> tokens_of(uint64_t who, size_t n) {
  std::vector<uint32_t> tokens;
  for (size_t i = 0; i < n; ++i) tokens.push_back(static_cast<uint32_t>(Prng::at(who, i) % 100'000));
  return tokens;
}

// An engine's event that stores blocks [first, first + n) of a prompt; its hashes are made up from the prompt's tokens.
BlockStored stored(const std::vector<uint32_t>& prompt, size_t first, size_t n, int block_tokens = 16, std::string tier = "gpu") {
  const auto size = static_cast<size_t>(block_tokens);
  BlockStored e;
  uint64_t hash = 17 + static_cast<uint64_t>(block_tokens);
  for (size_t i = 0; i < first + n; ++i) {
    for (size_t t = i * size; t < (i + 1) * size; ++t) hash = mix64(hash * 31 + prompt[t]);
    if (i + 1 == first) e.parent = hash, e.has_parent = true;
    if (i >= first) e.hashes.push_back(hash);
  }
  e.tokens.assign(prompt.begin() + static_cast<ptrdiff_t>(first * size), prompt.begin() + static_cast<ptrdiff_t>((first + n) * size));
  e.block_tokens = block_tokens;
  e.tier = std::move(tier);
  return e;
}
KvEventBatch batch(std::vector<KvEvent> events) { return {.timestamp_s = 1, .events = std::move(events)}; }
uint16_t cached(const KvEventIndex& index, const std::vector<uint32_t>& prompt, int slot, std::string_view model = "m") {
  KvMatch match;
  index.match(index.keys(model, prompt), match);
  return match.cached[static_cast<size_t>(slot)];
}

TEST(KvEventIndex, FollowsStoresRemovalsAndClears) {
  KvEventIndex index({});
  const auto prompt = tokens_of(1, 160);
  index.apply(3, "m", batch({stored(prompt, 0, 4), stored(prompt, 4, 4)}));
  index.apply(5, "m", batch({stored(prompt, 0, 2)}));
  EXPECT_EQ(cached(index, prompt, 3), 8);
  EXPECT_EQ(cached(index, prompt, 5), 2);
  EXPECT_EQ(cached(index, prompt, 3, "another model"), 0);
  BlockStored tail = stored(prompt, 6, 1);
  index.apply(3, "m", batch({BlockRemoved{.hashes = tail.hashes}}));
  EXPECT_EQ(cached(index, prompt, 3), 6) << "the last block is there but its prefix is not";
  index.apply(3, "m", batch({tail}));
  EXPECT_EQ(cached(index, prompt, 3), 8);
  index.apply(3, "m", batch({AllBlocksCleared{}}));
  EXPECT_EQ(cached(index, prompt, 3), 0);
  EXPECT_EQ(cached(index, prompt, 5), 2);
  index.forget(5);
  EXPECT_EQ(index.counts().blocks, 0u);
}

TEST(KvEventIndex, CountsDuplicatesAndTiers) {
  KvEventsParams params;
  params.tiers = {{"gpu", 1.0f}, {"cpu", 0.5f}};
  KvEventIndex index(params);
  const auto prompt = tokens_of(2, 64);
  const BlockStored gpu = stored(prompt, 0, 4), cpu = stored(prompt, 0, 4, 16, "cpu");
  index.apply(1, "m", batch({gpu, gpu, cpu}));
  index.apply(1, "m", batch({BlockRemoved{.hashes = gpu.hashes}}));
  KvMatch match;
  index.match(index.keys("m", prompt), match);
  EXPECT_EQ(match.weighted[1], 4) << "stored twice, removed once";
  index.apply(1, "m", batch({BlockRemoved{.hashes = gpu.hashes}, BlockRemoved{.hashes = gpu.hashes}}));
  index.match(index.keys("m", prompt), match);
  EXPECT_EQ(match.cached[1], 4);
  EXPECT_EQ(match.weighted[1], 2) << "the second tier counts half";
  index.apply(1, "m", batch({BlockRemoved{.hashes = cpu.hashes, .tier = "cpu"}}));
  EXPECT_EQ(cached(index, prompt, 1), 0);
  EXPECT_EQ(index.counts().blocks, 0u);
}

TEST(KvEventIndex, OrphansWaitForTheirParent) {
  KvEventIndex index({});
  const auto prompt = tokens_of(3, 320);
  index.apply(1, "m", batch({stored(prompt, 12, 4)}));
  index.apply(1, "m", batch({stored(prompt, 8, 4), stored(prompt, 4, 4)}));
  EXPECT_EQ(index.counts().orphans, 3u);
  index.apply(1, "m", batch({BlockRemoved{.hashes = stored(prompt, 15, 1).hashes}}));  // before it was ever known
  EXPECT_EQ(cached(index, prompt, 1), 0);
  index.apply(1, "m", batch({stored(prompt, 0, 4)}));
  EXPECT_EQ(cached(index, prompt, 1), 15);
  EXPECT_EQ(index.counts().orphans, 0u);
  EXPECT_EQ(index.counts().orphans_adopted, 3u);
}

TEST(KvEventIndex, OrphansAreBounded) {
  KvEventIndex index({});
  for (uint64_t i = 0; i < 6000; ++i) index.apply(1, "m", batch({stored(tokens_of(i, 32), 1, 1)}));
  EXPECT_LE(index.counts().orphans, 4096u);
  EXPECT_EQ(index.counts().orphans_dropped, 6000 - index.counts().orphans);
  KvEventsParams small;
  small.blocks_max = 10;
  KvEventIndex full(small);
  full.apply(1, "m", batch({stored(tokens_of(1, 320), 0, 20)}));
  EXPECT_EQ(full.counts().blocks, 10u);
  EXPECT_EQ(full.counts().blocks_dropped, 1u);
  EXPECT_EQ(cached(full, tokens_of(1, 320), 1), 10);
}

TEST(KvEventIndex, MixedBlockSizes) {
  KvEventIndex index({});
  const auto prompt = tokens_of(4, 480);
  index.apply(1, "m", batch({stored(prompt, 0, 3, 64)}));   // a multiple of ours
  index.apply(2, "m", batch({stored(prompt, 0, 5, 40)}));   // none: a grid of its own
  index.apply(3, "m", batch({stored(prompt, 0, 30, 16)}));
  EXPECT_EQ(cached(index, prompt, 1), 12);
  EXPECT_EQ(cached(index, prompt, 2), 12) << "200 tokens are 12 blocks of ours";
  EXPECT_EQ(cached(index, prompt, 3), 30);
  index.apply(1, "m", batch({BlockRemoved{.hashes = stored(prompt, 2, 1, 64).hashes}}));
  EXPECT_EQ(cached(index, prompt, 1), 8);
}

TEST(KvEventIndex, SpeculationLastsItsTime) {
  KvEventsParams params;
  params.speculative = true;
  params.speculative_ttl_ms = 100;
  KvEventIndex index(params);
  const auto prompt = tokens_of(5, 64);
  index.speculate(index.keys("m", prompt), 4, 1000);
  EXPECT_EQ(cached(index, prompt, 4), 4);
  index.apply(4, "m", batch({stored(prompt, 0, 2)}));
  index.expire(1099);
  EXPECT_EQ(cached(index, prompt, 4), 4);
  index.expire(1100);
  EXPECT_EQ(cached(index, prompt, 4), 2) << "what the engine said stays";
}

TEST(KvEventIndex, LoraTakesTheModelsPlaceAndExtraKeysSeparate) {
  KvEventIndex index({});
  const auto prompt = tokens_of(6, 32);
  BlockStored e = stored(prompt, 0, 2);
  e.lora = "adapter";
  index.apply(1, "m", batch({e}));
  EXPECT_EQ(cached(index, prompt, 1, "m"), 0);
  EXPECT_EQ(cached(index, prompt, 1, "adapter"), 2);
  BlockStored image = stored(prompt, 0, 2);
  image.extra_keys = {{}, {"hash of an image"}};
  index.apply(2, "m", batch({image}));
  EXPECT_EQ(cached(index, prompt, 2, "m"), 1);
}

// Two engines store, duplicate and evict at random, children possibly before parents; the index says what a plain model says.
TEST(KvEventIndex, MatchesLikeAPlainModel) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Prng prng(seed);
    KvEventIndex index({});
    std::vector<std::vector<uint32_t>> prompts;
    for (uint64_t i = 0; i < 6; ++i) prompts.push_back(tokens_of(seed * 100 + i, 128));
    std::map<std::pair<int, size_t>, std::vector<int>> refs;  // (slot, prompt) -> count a block
    for (int step = 0; step < 200; ++step) {
      const int slot = static_cast<int>(prng.below(2));
      const size_t p = prng.below(prompts.size());
      auto& mine = refs.try_emplace({slot, p}, std::vector<int>(8)).first->second;
      const size_t known = static_cast<size_t>(std::ranges::find(mine, 0) - mine.begin());
      if (prng.chance(0.6)) {
        const size_t first = prng.below(known + 1), n = std::min<size_t>(8 - first, 1 + prng.below(4));
        if (n == 0) continue;
        index.apply(slot, "m", batch({stored(prompts[p], first, n)}));
        for (size_t i = first; i < first + n; ++i) ++mine[i];
      } else if (known > 0) {  // engines evict from the end
        size_t last = 7;
        while (mine[last] == 0) --last;
        index.apply(slot, "m", batch({BlockRemoved{.hashes = stored(prompts[p], last, 1).hashes}}));
        --mine[last];
      }
      ASSERT_EQ(cached(index, prompts[p], slot), std::ranges::find(mine, 0) - mine.begin()) << "seed " << seed << " step " << step;
    }
  }
}

TEST(KvKeys, SchemesDifferAndAreStable) {
  const KvKeys fnv("cbor-fnv", ""), seeded("cbor-fnv", "s"), xxh("xxh64", "");
  const std::vector<uint32_t> tokens = {1, 200, 70'000};
  // FNV-64a over the bytes 83 1b cbf29ce484222325 f6 61 6d, computed by hand.
  uint64_t h = 0xcbf29ce484222325ULL;
  for (const int byte : {0x83, 0x1b, 0xcb, 0xf2, 0x9c, 0xe4, 0x84, 0x22, 0x23, 0x25, 0xf6, 0x61, 0x6d}) h = (h ^ static_cast<uint64_t>(byte)) * 0x100000001b3ULL;
  EXPECT_EQ(fnv.root("m"), h);
  uint64_t k = 0xcbf29ce484222325ULL;
  for (const int byte : {0x83, 0x07, 0x83, 0x01, 0x18, 0xc8, 0x1a, 0x00, 0x01, 0x11, 0x70, 0xf6}) k = (k ^ static_cast<uint64_t>(byte)) * 0x100000001b3ULL;
  EXPECT_EQ(fnv.next(7, tokens), k);
  EXPECT_NE(fnv.root("m"), seeded.root("m"));
  EXPECT_NE(fnv.next(7, tokens), xxh.next(7, tokens));
  EXPECT_EQ(xxh.chain("m", tokens, 1, 2048).size(), 3u);
  EXPECT_EQ(fnv.chain("m", tokens, 2, 2048).size(), 1u) << "full blocks only";
}

TEST(KvEventCodec, ReadsWhatItWritesInBothForms) {
  Prng prng(secure_random_u64());
  BlockStored e = stored(tokens_of(1, 64), 1, 3);
  e.lora = "a";
  e.lora_id = 7;
  e.tier = "cpu";
  e.group = 2;
  e.extra_keys = {{}, {"x", "y"}, {}};
  KvEventBatch in = batch({e, BlockRemoved{.hashes = {1, ~0ull}, .tier = "disk", .group = 1}, AllBlocksCleared{}});
  in.rank = 3;
  for (const KvForm form : {KvForm::kArray, KvForm::kMap}) {
    const auto out = decode_kv_events(encode_kv_events(in, form));
    ASSERT_TRUE(out) << out.error().message;
    EXPECT_EQ(out->rank, 3);
    ASSERT_EQ(out->events.size(), 3u);
    const auto& s = std::get<BlockStored>(out->events[0]);
    EXPECT_EQ(s.hashes, e.hashes);
    EXPECT_EQ(s.tokens, e.tokens);
    EXPECT_EQ(s.parent, e.parent);
    EXPECT_TRUE(s.has_parent);
    EXPECT_EQ(s.lora, "a");
    EXPECT_EQ(s.lora_id, 7);
    EXPECT_EQ(s.tier, "cpu");
    EXPECT_EQ(s.group, 2);
    EXPECT_EQ(s.extra_keys, e.extra_keys);
    EXPECT_EQ(std::get<BlockRemoved>(out->events[1]).hashes, (std::vector<uint64_t>{1, ~0ull}));
    EXPECT_TRUE(std::holds_alternative<AllBlocksCleared>(out->events[2]));
  }
}

TEST(KvEventCodec, ForeignForms) {
  using std::string_literals::operator""s;
  // [1.5, [["BlockStored", [h'..0102' of 10 bytes, -1], nil, [7], 1]]]: bytes as hashes, signed hashes, trailing fields left out
  const std::string bytes = "\x92\xcb\x3f\xf8\0\0\0\0\0\0\x91\x95\xab" "BlockStored\x92\xc4\x0a\xff\xff\0\0\0\0\0\0\x01\x02\xff\xc0\x91\x07\x01"s;
  const auto out = decode_kv_events(bytes);
  ASSERT_TRUE(out) << out.error().message;
  EXPECT_EQ(out->timestamp_s, 1.5);
  const auto& e = std::get<BlockStored>(out->events.at(0));
  EXPECT_EQ(e.hashes, (std::vector<uint64_t>{0x102, ~0ull}));
  EXPECT_FALSE(e.has_parent);
  EXPECT_EQ(e.tier, "gpu");
  EXPECT_EQ(out->rank, -1);
  // an unknown event is skipped, an old style extra key (text, offset) is read
  const std::string odd = "\x92\x01\x92\x92\xa3New\x93\x01\x02\x81\xa1x\xc3\x99\xab" "BlockStored\x90\xc0\x90\x10\xc0\xa3" "CPU\xc0\x92\xc0\x91\x92\xa1h\x05"s;
  const auto second = decode_kv_events(odd);
  ASSERT_TRUE(second) << second.error().message;
  ASSERT_EQ(second->events.size(), 1u);
  EXPECT_EQ(std::get<BlockStored>(second->events[0]).tier, "cpu");
  EXPECT_EQ(std::get<BlockStored>(second->events[0]).extra_keys, (std::vector<std::vector<std::string>>{{}, {"h"}}));
  EXPECT_FALSE(decode_kv_events(std::string(100'000, '\x91')));
  EXPECT_FALSE(decode_kv_events("\x92\x01\xdd\xff\xff\xff\xff"s)) << "more items than bytes";
  for (size_t n = 0; n < odd.size(); ++n) EXPECT_FALSE(decode_kv_events(odd.substr(0, n)));
}

TEST(KvEventCodec, Topics) {
  EXPECT_EQ(parse_kv_topic("kv@pod-1@org/model").pod, "pod-1");
  EXPECT_EQ(parse_kv_topic("kv@pod-1@org/model").model, "org/model");
  EXPECT_EQ(parse_kv_topic("kv-events").pod, "kv-events");
  EXPECT_EQ(parse_kv_topic("kv-events").model, "");
}

}  // namespace
}  // namespace baton::route
