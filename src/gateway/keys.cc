#include "gateway/keys.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/sha256.h"
#include "gateway/limits.h"

namespace baton::gateway {
namespace {

std::string digest(std::string_view key) { return hex(Sha256().update(key).finish()); }

std::string_view next_word(std::string_view& line) {
  const size_t begin = std::min(line.find_first_not_of(" \t\r"), line.size());
  line.remove_prefix(begin);
  const std::string_view word = line.substr(0, line.find_first_of(" \t\r"));
  line.remove_prefix(word.size());
  return word;
}

bool is_digest(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

Result<> read_field(std::string_view word, ApiKey& key) {
  const size_t equals = word.find('=');
  const std::string_view name = word.substr(0, equals), value = equals == word.npos ? "" : word.substr(equals + 1);
  if (name == "objective") {
    key.objective = value;
    return {};
  }
  if (name != "tokens_per_minute" && name != "burst")
    return fail(Code::kInvalidArgument, "no field \"", name.substr(0, 32), "\"");
  int64_t n = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), n);
  if (error != std::errc() || end != value.data() + value.size() || n < 1)
    return fail(Code::kInvalidArgument, name, " wants a number above 0");
  (name == "burst" ? key.burst : key.tokens_per_minute) = n;
  return {};
}

}  // namespace

void ApiKey::fill(int64_t now_ms) {
  const auto full = static_cast<double>(burst > 0 ? burst : tokens_per_minute);
  if (level_ == -1 && filled_ms_ == 0) level_ = full;
  const double minutes = static_cast<double>(now_ms - filled_ms_) / 60'000.0;
  if (filled_ms_ != 0) level_ = std::min(full, level_ + minutes * static_cast<double>(tokens_per_minute));
  filled_ms_ = now_ms;
}

int64_t ApiKey::wait_ms(int64_t now_ms) {
  if (tokens_per_minute == 0) return 0;
  std::lock_guard lock(mutex_);
  fill(now_ms);
  if (level_ > 0) return 0;
  return 1 + static_cast<int64_t>(std::ceil(-level_ * 60'000.0 / static_cast<double>(tokens_per_minute)));
}

void ApiKey::charge(int64_t tokens, int64_t now_ms) {
  if (tokens_per_minute == 0) return;
  std::lock_guard lock(mutex_);
  fill(now_ms);
  level_ -= static_cast<double>(tokens);
}

double ApiKey::level(int64_t now_ms) {
  std::lock_guard lock(mutex_);
  fill(now_ms);
  return level_;
}

Result<> ApiKeys::load(std::string_view text) {
  Table next;
  std::string errors;
  {
    std::lock_guard lock(mutex_);
    next = own_;
  }
  for (int number = 1; !text.empty(); ++number) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    auto bad = [&](std::string_view why) { errors += cat(errors.empty() ? "" : "; ", "line ", number, ": ", why); };
    auto key = std::make_shared<ApiKey>();
    key->name = next_word(line);
    if (key->name.empty() || key->name.starts_with('#')) continue;
    const std::string_view secret = next_word(line);
    if (secret.empty() || secret.starts_with('#')) {
      bad("a name and a key are wanted");
      continue;
    }
    for (std::string_view word; !(word = next_word(line)).empty() && !word.starts_with('#');) {
      if (const auto read = read_field(word, *key); !read) bad(read.error().message);
    }
    const bool hashed = secret.starts_with("sha256:");
    if (hashed && !is_digest(secret.substr(7))) bad("sha256: wants 64 hex digits in lower case");
    if (key->name.size() > kKeyNameBytesMax) bad("the name is too long");
    if (!next.emplace(hashed ? std::string(secret.substr(7)) : digest(secret), key).second) bad("this key is there already");
    if (next.size() > kKeysMax) return fail(Code::kInvalidArgument, "more than ", kKeysMax, " keys");
  }
  if (!errors.empty()) return fail(Code::kInvalidArgument, errors);
  std::lock_guard lock(mutex_);
  // A key that stays as it was keeps its bucket.
  for (auto& [hash, key] : next) {
    const auto old = table_->find(hash);
    if (old == table_->end()) continue;
    const ApiKey &a = *old->second, &b = *key;
    if (a.name == b.name && a.tokens_per_minute == b.tokens_per_minute && a.burst == b.burst && a.objective == b.objective)
      key = old->second;
  }
  table_ = std::make_shared<const Table>(std::move(next));
  return {};
}

void ApiKeys::add(std::string_view name, std::string_view key) {
  auto made = std::make_shared<ApiKey>();
  made->name = name;
  std::lock_guard lock(mutex_);
  own_[digest(key)] = made;
  Table next = *table_;
  next[digest(key)] = made;
  table_ = std::make_shared<const Table>(std::move(next));
}

bool ApiKeys::empty() const {
  std::lock_guard lock(mutex_);
  return table_->empty();
}

std::shared_ptr<ApiKey> ApiKeys::find(std::string_view authorization) const {
  constexpr std::string_view kBearer = "Bearer ";
  if (!authorization.starts_with(kBearer)) return nullptr;
  const std::string hash = digest(authorization.substr(kBearer.size()));
  std::shared_ptr<const Table> table;
  {
    std::lock_guard lock(mutex_);
    table = table_;
  }
  const auto at = table->find(hash);
  return at == table->end() ? nullptr : at->second;
}

}  // namespace baton::gateway
