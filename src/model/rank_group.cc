#include "model/rank_group.h"

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstring>

#include "model/lora.h"
#include "tensor/threads.h"

namespace baton::model {
namespace {

using Clock = std::chrono::steady_clock;
using Word = std::atomic<uint32_t>;
static_assert(Word::is_always_lock_free && sizeof(Word) == sizeof(uint32_t));

constexpr auto kSpin = std::chrono::microseconds(50);   // ranks that share a step meet within a few
constexpr auto kDoze = std::chrono::milliseconds(200);  // then the clock is looked at again

long futex(Word& word, int operation, uint32_t value, const timespec* timeout) {
  return ::syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), operation, value, timeout, nullptr, 0);
}

// A word that ranks wait on, and how many of them sleep.
struct Signal {
  alignas(64) Word word{0};
  Word sleepers{0};

  void advance() {
    word.fetch_add(1);
    if (sleepers.load() > 0) futex(word, FUTEX_WAKE, INT_MAX, nullptr);
  }
  // Until the word is not `old` any more; false if that took longer than patience_ms (negative: for ever).
  bool await_change(uint32_t old, int64_t patience_ms) {
    const auto began = Clock::now();
    while (Clock::now() < began + kSpin)
      for (int i = 0; i < 32; ++i) {
        if (word.load(std::memory_order_acquire) != old) return true;
        tensor::pause();
      }
    sleepers.fetch_add(1);
    bool changed = false;
    const timespec doze{.tv_sec = 0, .tv_nsec = std::chrono::nanoseconds(kDoze).count()};
    while (!(changed = word.load() != old)) {
      if (patience_ms >= 0 && Clock::now() > began + std::chrono::milliseconds(patience_ms)) break;
      futex(word, FUTEX_WAIT, old, patience_ms >= 0 ? &doze : nullptr);
    }
    sleepers.fetch_sub(1);
    return changed;
  }
};

constexpr size_t round_up(size_t n) { return (n + 63) / 64 * 64; }

// Where the parts of the segment begin.
struct Places {
  size_t sums, logits, order, end;
  Places(const GroupShape& s, size_t header) {
    const auto rows = static_cast<size_t>(kSliceTokens);
    sums = round_up(header);
    logits = sums + round_up(2 * static_cast<size_t>(s.ranks) * rows * static_cast<size_t>(s.hidden) * sizeof(float));
    order = logits + round_up(rows * static_cast<size_t>(s.vocab) * sizeof(float));
    end = order + round_up(static_cast<size_t>(s.order_words) * sizeof(int32_t));
  }
};

enum Flags : int32_t { kLast = 1, kAll = 2 };
constexpr int64_t kSeqWords = words_of(1, 0, 0) - words_of(0, 0, 0);  // before its tokens and blocks

}  // namespace

struct RankGroup::Header {
  uint64_t magic;
  GroupShape shape;
  Signal meeting, order;
  alignas(64) Word arrived{0};
  alignas(64) Word failed{0};
};

struct RankGroup::Segment {
  int fd = -1;
  std::byte* data = nullptr;
  size_t bytes = 0;
  ~Segment() {
    if (data) ::munmap(data, bytes);
    if (fd >= 0) ::close(fd);
  }
};

namespace {
constexpr uint64_t kMagic = 0x6b6e61722d627400 + 2;  // with the layout's version
}

RankGroup::RankGroup(std::shared_ptr<Segment> segment, int rank) : segment_(std::move(segment)), rank_(rank) {}
RankGroup::~RankGroup() = default;

Result<std::unique_ptr<RankGroup>> RankGroup::create(const GroupShape& shape) {
  auto segment = std::make_shared<Segment>();
  segment->bytes = Places(shape, sizeof(Header)).end;
  segment->fd = ::memfd_create("baton-ranks", MFD_CLOEXEC);
  if (segment->fd < 0 || ::ftruncate(segment->fd, static_cast<off_t>(segment->bytes)) != 0)
    return baton::fail(Code::kResourceExhausted, "memory shared by ranks: ", std::strerror(errno));
  void* p = ::mmap(nullptr, segment->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, segment->fd, 0);
  if (p == MAP_FAILED) return baton::fail(Code::kResourceExhausted, "map memory shared by ranks: ", std::strerror(errno));
  segment->data = static_cast<std::byte*>(p);
  auto* header = new (p) Header{.magic = kMagic, .shape = shape, .meeting = {}, .order = {}};
  (void)header;
  return std::unique_ptr<RankGroup>(new RankGroup(std::move(segment), 0));
}

Result<std::unique_ptr<RankGroup>> RankGroup::attach(int fd, int rank) {
  auto segment = std::make_shared<Segment>();
  struct stat st{};
  if (::fstat(fd, &st) != 0 || st.st_size < static_cast<off_t>(sizeof(Header)))
    return baton::fail(Code::kInvalidArgument, "the descriptor is not that of a group of ranks");
  segment->bytes = static_cast<size_t>(st.st_size);
  void* p = ::mmap(nullptr, segment->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (p == MAP_FAILED) return baton::fail(Code::kResourceExhausted, "map memory shared by ranks: ", std::strerror(errno));
  segment->data = static_cast<std::byte*>(p);
  std::unique_ptr<RankGroup> group(new RankGroup(std::move(segment), rank));
  const Header& h = group->header();
  if (h.magic != kMagic || rank < 1 || rank >= h.shape.ranks || Places(h.shape, sizeof(Header)).end != group->segment_->bytes)
    return baton::fail(Code::kInvalidArgument, "rank ", rank, ": the shared memory is of another program or group");
  return group;
}

std::unique_ptr<RankGroup> RankGroup::beside(int rank) const { return std::unique_ptr<RankGroup>(new RankGroup(segment_, rank)); }

RankGroup::Header& RankGroup::header() const { return *reinterpret_cast<Header*>(segment_->data); }
const GroupShape& RankGroup::shape() const { return header().shape; }
int RankGroup::fd() const { return segment_->fd; }
bool RankGroup::failed() const { return header().failed.load() != 0; }

void RankGroup::fail() {
  header().failed.store(1);
  header().meeting.advance();  // whoever waits looks at `failed`
  header().order.advance();
}

// Read before arriving, the number of the meeting cannot change until all are there; after a failure nobody waits for it.
void RankGroup::meet() {
  Header& h = header();
  const uint32_t number = h.meeting.word.load();
  if (failed()) return;
  if (h.arrived.fetch_add(1) + 1 == static_cast<uint32_t>(h.shape.ranks)) {
    h.arrived.store(0);
    h.meeting.advance();
  } else if (!h.meeting.await_change(number, h.shape.patience_ms)) {
    fail();
  }
}

float* RankGroup::part(int turn, int rank) const {
  const GroupShape& s = shape();
  const auto place = static_cast<size_t>(turn * s.ranks + rank) * static_cast<size_t>(kSliceTokens * s.hidden);
  return reinterpret_cast<float*>(segment_->data + Places(s, sizeof(Header)).sums) + place;
}

float* RankGroup::logits() const { return reinterpret_cast<float*>(segment_->data + Places(shape(), sizeof(Header)).logits); }

Result<> RankGroup::give(Order order, std::span<const SeqInput> seqs) {
  int64_t tokens = 0, blocks = 0;
  for (const SeqInput& s : seqs) {
    tokens += std::ssize(s.tokens), blocks += std::ssize(s.blocks);
    if (s.lora && s.lora->number() <= 0) return baton::fail(Code::kInvalidArgument, "a LoRA adapter that only one rank has loaded");
  }
  if (const int64_t words = words_of(std::ssize(seqs), tokens, blocks); words > shape().order_words)
    return baton::fail(Code::kResourceExhausted, "a step of ", words, " words does not fit the ranks' ", shape().order_words);
  auto* at = reinterpret_cast<int32_t*>(segment_->data + Places(shape(), sizeof(Header)).order);
  *at++ = static_cast<int32_t>(order);
  *at++ = static_cast<int32_t>(seqs.size());
  for (const SeqInput& s : seqs) {
    *at++ = static_cast<int32_t>(s.tokens.size());
    *at++ = s.first_position;
    *at++ = static_cast<int32_t>(s.blocks.size());
    *at++ = (s.last_logits ? kLast : 0) | (s.all_logits ? kAll : 0);
    *at++ = s.lora ? s.lora->number() : 0;
    at = std::ranges::copy(s.tokens, at).out;
    at = std::ranges::copy(s.blocks, at).out;
  }
  header().order.advance();
  return {};
}

std::optional<RankGroup::Order> RankGroup::await_order() {
  Signal& order = header().order;
  order.await_change(seen_, -1);
  ++seen_;
  if (failed()) return std::nullopt;
  return static_cast<Order>(*reinterpret_cast<const int32_t*>(segment_->data + Places(shape(), sizeof(Header)).order));
}

Result<std::vector<SeqInput>> RankGroup::step(const FindLora& find) const {
  const auto* at = reinterpret_cast<const int32_t*>(segment_->data + Places(shape(), sizeof(Header)).order);
  const int32_t* const end = at + shape().order_words;
  std::vector<SeqInput> out;
  const int32_t n = at[1];
  at += 2;
  for (int32_t i = 0; i < n; ++i) {
    if (end - at < kSeqWords || at[0] < 0 || at[2] < 0 || end - at - kSeqWords < int64_t{at[0]} + at[2])
      return baton::fail(Code::kInternal, "an order of rank 0 that ends beyond its room");
    const LoraAdapter* const lora = at[4] != 0 ? find(at[4]) : nullptr;
    if (at[4] != 0 && !lora) return baton::fail(Code::kInternal, "an order of rank 0 names LoRA adapter ", at[4], ", which is not loaded");
    const auto tokens = static_cast<size_t>(at[0]), blocks = static_cast<size_t>(at[2]);
    out.push_back({.tokens = {at + kSeqWords, tokens},
                   .first_position = at[1],
                   .blocks = {at + kSeqWords + tokens, blocks},
                   .last_logits = (at[3] & kLast) != 0,
                   .all_logits = (at[3] & kAll) != 0,
                   .lora = lora});
    at += kSeqWords + tokens + blocks;
  }
  return out;
}

}  // namespace baton::model
