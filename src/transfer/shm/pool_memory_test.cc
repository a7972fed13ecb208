// The KV pool's memory: where it lies, who may map it, and that making its pages ahead changes nothing in it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/prng.h"
#include "transfer/shm/shm_transport.h"
#include "transfer/transfer.h"

namespace baton::transfer {
namespace {

using enum PoolMemory::Sharing;
constexpr size_t kHuge = 2u << 20;

TEST(PoolMemory, BeginsWhereAHugePageMayAndIsZeroed) {
  for (const auto sharing : {kNobody, kReaders, kWriters}) {
    for (const size_t bytes : {size_t{1}, size_t{5000}, kHuge, 3 * kHuge + 4096 + 7}) {
      const auto pool = PoolMemory::create(bytes, "test", sharing);
      ASSERT_TRUE(pool) << pool.error().message;
      EXPECT_EQ(pool->bytes().size(), bytes);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(pool->bytes().data()) % kHuge, 0u);
      EXPECT_TRUE(std::ranges::all_of(pool->bytes(), [](std::byte b) { return b == std::byte{0}; }));
      std::ranges::fill(pool->bytes(), std::byte{1});
    }
    EXPECT_FALSE(PoolMemory::create(0, "test", sharing));
    for (const size_t much : {SIZE_MAX, SIZE_MAX / 2, size_t{1} << 60}) EXPECT_FALSE(PoolMemory::create(much, "test", sharing));
  }
}

TEST(PoolMemory, PagesMadeAheadKeepWhatIsInThem) {
  for (const auto sharing : {kNobody, kReaders}) {
    constexpr size_t kBytes = 12 * kHuge + 12345;
    auto pool = PoolMemory::create(kBytes, "test", sharing);
    ASSERT_TRUE(pool) << pool.error().message;
    // Written before, while and after: every 1,000th byte, from either end.
    const auto value = [](size_t i) { return static_cast<std::byte>(mix64(i) | 1); };
    for (size_t i = 0; i < kBytes / 2; i += 1000) pool->bytes()[i] = value(i);
    pool->touch_in_background();
    for (size_t i = kBytes / 2 / 1000 * 1000 + 1000; i < kBytes; i += 1000) pool->bytes()[i] = value(i);
    pool->await_touched();
    for (size_t i = 0; i < kBytes; ++i)
      ASSERT_EQ(pool->bytes()[i], i % 1000 == 0 ? value(i) : std::byte{0}) << i;
    if (sharing == kNobody) continue;
    const auto peer = PeerPool::map(Fd(::dup(pool->fd())), kBytes);
    ASSERT_TRUE(peer) << peer.error().message;
    EXPECT_TRUE(std::ranges::equal(peer->bytes(), pool->bytes()));
  }
}

TEST(PoolMemory, WhatNobodySharesHasNoDescriptorAndNoNode) {
  auto pool = *PoolMemory::create(1 << 20, "test", kNobody);
  EXPECT_EQ(pool.fd(), -1);
  Metrics metrics;
  const kv::KvLayout layout{.layers = 1, .kv_heads = 1, .head_dim = 32};
  for (const char* transport : {"auto", "shm", "tcp"}) {
    const auto node = TransferNode::start({.engine_id = "e", .transport = transport}, layout, pool, metrics);
    ASSERT_FALSE(node);
    EXPECT_EQ(node.error().code, Code::kInvalidArgument);
    EXPECT_THAT(node.error().message, ::testing::HasSubstr("map"));
  }
}

}  // namespace
}  // namespace baton::transfer
