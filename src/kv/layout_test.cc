#include "kv/layout.h"

#include <gtest/gtest.h>

#include <set>

namespace baton::kv {
namespace {

constexpr KvLayout kSmol{.layers = 30, .kv_heads = 3, .head_dim = 64};

TEST(KvLayout, TilesPartitionTheBlock) {
  for (int i = 0; i < kKvDtypes; ++i) {
    const auto dtype = static_cast<KvDtype>(i);
    KvLayout layout{.layers = 4, .kv_heads = 3, .head_dim = 40, .block_tokens = 16, .dtype = dtype};
    std::set<size_t> starts;
    for (int layer = 0; layer < layout.layers; ++layer) {
      for (int head = 0; head < layout.kv_heads; ++head) {
        starts.insert(layout.k_offset(layer, head));
        starts.insert(layout.v_offset(layer, head));
      }
    }
    ASSERT_EQ(starts.size(), 2u * 4 * 3);
    size_t expected = 0;
    for (size_t start : starts) {  // ascending: every tile starts where the one before ends
      EXPECT_EQ(start, expected);
      expected += layout.tile_bytes();
    }
    EXPECT_EQ(expected, layout.block_bytes());
    EXPECT_EQ(layout.token_bytes() * 16, layout.block_bytes());
  }
}

TEST(KvLayout, KnownSizes) {
  EXPECT_EQ(kSmol.token_bytes(), 30u * 2 * 3 * 64 * 2);  // 23,040 bytes a token in bf16
  EXPECT_EQ(kSmol.block_bytes(), 368'640u);
  KvLayout eight = kSmol;
  eight.dtype = KvDtype::kE4m3;
  EXPECT_EQ(eight.block_bytes(), 184'320u);
  eight.dtype = KvDtype::kI8Scaled;  // and a scale for each token and head, of K and of V
  EXPECT_EQ(eight.token_bytes(), 30u * 2 * 3 * (64 + 4));
}

TEST(KvLayout, CacheDtypesAreNamedAsVllmNamesThem) {
  EXPECT_EQ(find_cache_dtype("auto")->dtype, KvDtype::kBf16);
  EXPECT_EQ(find_cache_dtype("fp8")->dtype, KvDtype::kE4m3);
  EXPECT_EQ(find_cache_dtype("int8_per_token_head")->dtype, KvDtype::kI8Scaled);
  for (const char* name : {"fp8_inc", "nvfp4", "turboquant_k8v4", "int8", ""}) EXPECT_EQ(find_cache_dtype(name), nullptr) << name;
}

TEST(KvLayout, IdNamesEveryField) {
  EXPECT_EQ(kSmol.id(), "bf16-l30-h3-d64-b16-token");
  std::set<std::string> ids{kSmol.id()};
  auto differs = [&](auto change) {
    KvLayout layout = kSmol;
    change(layout);
    EXPECT_TRUE(ids.insert(layout.id()).second) << layout.id();
  };
  differs([](KvLayout& l) { l.layers = 31; });
  differs([](KvLayout& l) { l.kv_heads = 1; });
  differs([](KvLayout& l) { l.head_dim = 128; });
  differs([](KvLayout& l) { l.block_tokens = 32; });
  for (int i = 1; i < kKvDtypes; ++i) differs([&](KvLayout& l) { l.dtype = static_cast<KvDtype>(i); });
  differs([](KvLayout& l) { l.tile_order = TileOrder::kVnni; });
}

TEST(Layout, BlockSizeAndOrderMayDifferBetweenPeers) {
  KvLayout a{.layers = 30, .kv_heads = 3, .head_dim = 64}, b = a;
  b.block_tokens = 32;
  b.tile_order = TileOrder::kVnni;
  EXPECT_NE(a.id(), b.id());
  EXPECT_EQ(model_part(a.id()), "bf16-l30-h3-d64");
  EXPECT_EQ(model_part(a.id()), model_part(b.id()));
  b.dtype = KvDtype::kE4m3Scaled;
  EXPECT_EQ(model_part(b.id()), "fp8_per_token_head-l30-h3-d64");
  b = a;
  b.kv_heads = 4;
  EXPECT_NE(model_part(a.id()), model_part(b.id()));
  EXPECT_EQ(model_part("nonsense"), "nonsense");
}

}  // namespace
}  // namespace baton::kv
