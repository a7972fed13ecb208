// The hash chain against a second CBOR encoder and against constants computed with Python (hashlib over canonical CBOR).
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <numeric>

#include "base/prng.h"
#include "kv/block_pool.h"

namespace baton::kv {
namespace {

std::vector<int32_t> iota(int32_t first, int n) {
  std::vector<int32_t> out(static_cast<size_t>(n));
  std::iota(out.begin(), out.end(), first);
  return out;
}

// r = H("42"); a = H((r, 0..15, None)); b = H((a, (23, 24, 255, ...), None)); and so on, with
// H = lambda x: hashlib.sha256(cbor2.dumps(x, canonical=True)).hexdigest()
TEST(BlockHash, MatchesPythonConstants) {
  BlockHash root = root_hash("42");
  EXPECT_EQ(hex(root), "9fa6eb003f14425eb9c8e6baacfbcaab26257357b829c7bfa74ffcc4f31c1780");
  EXPECT_EQ(hex(root_hash("")), "8d33f520a3c4cef80d2453aef81b612bfe1cb44c8b2025630ad38662763f13d3");
  BlockHash a = block_hash(root, iota(0, 16));
  EXPECT_EQ(hex(a), "63876f948a5f9ef88191c7d6554fbeeea5c622d4da15d0d527bd352623590b0d");
  int32_t every_head[] = {23, 24, 255, 256, 65535, 65536, 2147483647, 0, 1, 2, 3, 4, 5, 6, 7, 8};
  EXPECT_EQ(hex(block_hash(a, every_head)), "e0c4665d7ddf40558c351df7727144d8c54a550515d2b7cc66dec85dfeb33492");
  std::string_view salt[] = {"tenant-a"};
  EXPECT_EQ(hex(block_hash(root, iota(0, 16), salt)), "ce060e8d35785c0e8bbd1c1f3706c30c8ed50625e083e16558e25164b7f9ae5f");
  std::string longer(300, 's');
  std::string_view two[] = {"lora", longer};
  EXPECT_EQ(hex(block_hash(root, iota(1, 4), two)), "60edc1021dd1261978bf7028b98a6466d667f73761b009b0ed554871a335a31c");
  EXPECT_EQ(hex(block_hash(root, iota(100000, 300))), "169b85818e7a7218c92593c173a12d89513984358f2b74e2f03c14e1b220d491");
}

TEST(BlockHash, MatchesASecondEncoder) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    Prng prng(seed);
    BlockHash parent;
    for (uint8_t& byte : parent) byte = static_cast<uint8_t>(prng.next());
    std::vector<int32_t> tokens(prng.below(300));
    for (int32_t& t : tokens) t = static_cast<int32_t>(prng.next() >> (32 + prng.below(31))) * (prng.chance(0.1) ? -1 : 1);
    std::vector<std::string> extra(prng.below(3));
    for (std::string& e : extra) e.assign(prng.below(600), 'x');
    std::vector<std::string_view> views(extra.begin(), extra.end());

    auto value = nlohmann::json::array();
    value.push_back(nlohmann::json::binary({parent.begin(), parent.end()}));
    value.push_back(tokens);
    value.push_back(extra.empty() ? nlohmann::json() : nlohmann::json(extra));
    EXPECT_EQ(block_hash(parent, tokens, views), sha256(nlohmann::json::to_cbor(value)));
  }
}

// vLLM's extra keys: the adapter's name on every block, then what else distinguishes it, the salt on the first.
TEST(BlockHash, AdaptersShareNoBlock) {
  const BlockHash root = root_hash("0");
  const auto tokens = iota(7, 48);
  const Adapter one{.id = 1, .name = "a", .digest = "x"}, other{.id = 2, .name = "b", .digest = "x"}, again{.id = 3, .name = "a", .digest = "y"};
  const auto bare = hash_chain(root, tokens, 16), salted = hash_chain(root, tokens, 16, "s", &one), plain = hash_chain(root, tokens, 16, {}, &one);
  std::string_view first[] = {"a", "x", "s"}, rest[] = {"a", "x"};
  EXPECT_EQ(salted[0], block_hash(root, std::span(tokens).first(16), first));
  EXPECT_EQ(salted[1], block_hash(salted[0], std::span(tokens).subspan(16, 16), rest));
  for (const Adapter* adapter : {&other, &again}) {
    const auto chain = hash_chain(root, tokens, 16, {}, adapter);
    for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(chain[i] != bare[i] && chain[i] != plain[i] && plain[i] != bare[i]);
  }
}

TEST(BlockHash, ChainCoversFullBlocksOnly) {
  BlockHash root = root_hash("0");
  auto tokens = iota(7, 50);
  auto chain = hash_chain(root, tokens, 16);
  ASSERT_EQ(chain.size(), 3u);
  EXPECT_EQ(chain[0], block_hash(root, iota(7, 16)));
  EXPECT_EQ(chain[1], block_hash(chain[0], iota(23, 16)));
  EXPECT_EQ(chain[2], block_hash(chain[1], iota(39, 16)));
  EXPECT_TRUE(hash_chain(root, iota(0, 15), 16).empty());
}

TEST(BlockHash, SaltSeparatesTenantsFromTheFirstBlockOn) {
  BlockHash root = root_hash("0");
  auto plain = hash_chain(root, iota(0, 32), 16), a = hash_chain(root, iota(0, 32), 16, "a"),
       b = hash_chain(root, iota(0, 32), 16, "b");
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_NE(plain[i], a[i]);
    EXPECT_NE(a[i], b[i]);
  }
  EXPECT_EQ(a[1], block_hash(a[0], iota(16, 16)));  // the salt is named once and carried by the parent hash
}

}  // namespace
}  // namespace baton::kv
