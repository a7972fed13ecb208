#include "engine/rank_adapters.h"

#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <charconv>

#include "engine/limits.h"
#include "model/lora.h"

namespace baton::engine {
namespace {

using Held = std::shared_ptr<const model::LoraAdapter>;

bool send_text(const transfer::Fd& to, std::string_view text, int flags = 0) {
  text = text.substr(0, kRankMessageBytesMax);
  for (;;) {
    if (::send(to.get(), text.data(), text.size(), MSG_NOSIGNAL | flags) >= 0) return true;
    if (errno != EINTR) return false;
  }
}

// The next message, after at most patience_ms (negative: for ever); empty: the other end is gone, or late.
std::string receive_text(const transfer::Fd& from, int64_t patience_ms) {
  pollfd waiting{.fd = from.get(), .events = POLLIN, .revents = 0};
  for (;;) {
    const int ready = ::poll(&waiting, 1, static_cast<int>(patience_ms));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return {};
    char text[kRankMessageBytesMax];
    const ssize_t n = ::recv(from.get(), text, sizeof text, 0);
    if (n < 0 && errno == EINTR) continue;
    return n > 0 ? std::string(text, static_cast<size_t>(n)) : std::string();
  }
}

// The word up to the next blank, which is taken off.
std::string_view take_word(std::string_view& text) {
  const std::string_view word = text.substr(0, text.find(' '));
  text.remove_prefix(std::min(text.size(), word.size() + 1));
  return word;
}

int32_t take_number(std::string_view& text) {
  const std::string_view word = take_word(text);
  int32_t n = -1;
  std::from_chars(word.data(), word.data() + word.size(), n);
  return n;
}

}  // namespace

Result<Held> RankAdapters::load(const model::Model& first, const std::string& path, int32_t rank_max) {
  if (path.size() > kRankMessageBytesMax / 2) return fail(Code::kNotFound, "No adapter found for ", path.substr(0, 80), "...");
  const int32_t number = ++last_;
  std::vector<bool> asked;
  for (const transfer::Fd& end : ends_) asked.push_back(send_text(end, cat("load ", number, " ", rank_max, " ", path)));
  auto mine = first.load_lora(path, rank_max, number);  // while the others read theirs
  Result<> theirs;
  for (size_t i = 0; i < ends_.size(); ++i) {
    const Result<std::string> digest = asked[i] ? answer_of(i, number) : fail(Code::kUnavailable, "rank ", i + 1, " ended");
    if (!theirs || !mine) continue;  // the first error is told
    if (!digest)
      theirs = std::unexpected(digest.error());
    else if (*digest != (*mine)->digest())
      theirs = fail(Code::kInternal, "rank ", i + 1, " read another adapter from ", path, " than rank 0: its files changed meanwhile");
  }
  if (!mine || !theirs) {
    drop(number);
    return std::unexpected(mine ? theirs.error() : mine.error());
  }
  const model::LoraAdapter* const whole = mine->get();
  return Held(whole, [self = shared_from_this(), mine = *std::move(mine), number](const model::LoraAdapter*) { self->drop(number); });
}

// The digest of what the rank has read; answers to what was given up are passed over.
Result<std::string> RankAdapters::answer_of(size_t i, int32_t number) {
  for (;;) {
    const std::string said = receive_text(ends_[i], kRankAdapterMs);
    if (said.empty()) return fail(Code::kUnavailable, "rank ", i + 1, " ended, or does not answer");
    std::string_view rest = said;
    const bool ok = take_word(rest) == "ok";
    if (take_number(rest) != number) continue;
    if (!ok) return fail(Code::kInternal, "rank ", i + 1, ": ", rest);
    return std::string(rest);
  }
}

void RankAdapters::drop(int32_t number) {
  const std::lock_guard lock(mutex_);
  for (size_t i = 0; i < ends_.size(); ++i) {
    std::vector<int32_t>& waiting = dropped_[i];
    waiting.push_back(number);
    while (!waiting.empty() && send_text(ends_[i], cat("drop ", waiting.back()), MSG_DONTWAIT)) waiting.pop_back();
  }
}

RankAdapterReader::RankAdapterReader(const model::Model& model, transfer::Fd end) : model_(model), end_(std::move(end)) {
  thread_ = std::thread([this] { run(); });
}

RankAdapterReader::~RankAdapterReader() {
  ::shutdown(end_.get(), SHUT_RDWR);
  thread_.join();
}

Held RankAdapterReader::find(int32_t number) const {
  const std::lock_guard lock(mutex_);
  const auto found = adapters_.find(number);
  return found == adapters_.end() ? nullptr : found->second;
}

void RankAdapterReader::run() {
  for (;;) {
    const std::string said = receive_text(end_, -1);
    if (said.empty()) return;
    std::string_view rest = said;
    const std::string_view what = take_word(rest);
    const int32_t number = take_number(rest);
    if (what == "load") {
      const int32_t rank_max = take_number(rest);
      if (!send_text(end_, read(number, rank_max, std::string(rest)))) return;
    } else {
      Held last;  // ends outside the lock
      const std::lock_guard lock(mutex_);
      if (const auto found = adapters_.find(number); found != adapters_.end()) {
        last = std::move(found->second);
        adapters_.erase(found);
      }
    }
  }
}

// The answer to rank 0.
std::string RankAdapterReader::read(int32_t number, int32_t rank_max, const std::string& path) {
  auto part = model_.load_lora(path, rank_max, number);
  if (!part) return cat("no ", number, " ", part.error().message);
  const std::string digest = (*part)->digest();
  const std::lock_guard lock(mutex_);
  adapters_[number] = *std::move(part);
  return cat("ok ", number, " ", digest);
}

}  // namespace baton::engine
