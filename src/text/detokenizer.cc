#include "text/detokenizer.h"

#include <algorithm>

#include "text/limits.h"
#include "text/unicode.h"

namespace baton::text {
namespace {

// Whole characters at the front of bytes; incomplete ones at its end stay there. Broken bytes become U+FFFD.
std::string take_characters(std::string& bytes) {
  std::string out;
  size_t i = 0;
  while (i < bytes.size()) {
    Utf8Step step = utf8_step(bytes, i);
    if (step.kind == Utf8Step::kTruncated) break;
    out += step.kind == Utf8Step::kValid ? std::string_view(bytes).substr(i, step.length) : kReplacementCharacter;
    i += step.length;
  }
  bytes.erase(0, i);
  return out;
}

}  // namespace

Result<> Detokenizer::check(const DetokenizerOptions& options) {
  for (const std::string& s : options.stop) {
    if (s.empty()) return fail(Code::kInvalidArgument, "stop cannot contain an empty string.");
    if (s.size() > kStopStringBytesMax) {
      return fail(Code::kInvalidArgument, "a stop string of ", s.size(), " bytes is over the limit of ", kStopStringBytesMax);
    }
  }
  return {};
}

Detokenizer::Detokenizer(const Tokenizer& tokenizer, DetokenizerOptions options)
    : tokenizer_(tokenizer), options_(std::move(options)), strip_space_(tokenizer.strips_first_space()) {
  std::erase(options_.stop, "");
  for (const std::string& s : options_.stop) hold_back_ = std::max(hold_back_, s.size() - 1);
}

std::string Detokenizer::add(TokenId id) {
  if (stopped_) return "";
  ++tokens_;
  if (options_.skip_special && tokenizer_.is_special(id)) return "";
  std::string_view piece = tokenizer_.token_bytes(id);
  if (strip_space_ && piece.starts_with(' ')) piece.remove_prefix(1);
  strip_space_ = false;
  bytes_ += piece;
  size_t before = pending_.size();
  pending_ += take_characters(bytes_);
  if (tokens_ > options_.min_tokens) find_stop(before);
  return release(false);
}

// The earliest stop string that ends in the text added since `before`; what ended earlier was looked at when it came.
void Detokenizer::find_stop(size_t before) {
  size_t best = std::string::npos;
  const std::string* found = nullptr;
  for (const std::string& s : options_.stop) {
    size_t at = pending_.find(s, before - std::min(before, s.size() - 1));
    if (at < best) best = at, found = &s;
  }
  if (found == nullptr) return;
  stopped_ = *found;
  pending_.resize(options_.include_stop ? best + found->size() : best);
  bytes_.clear();
}

// Keeps back only what may still become a stop string: the longest tail that begins one.
std::string Detokenizer::release(bool final) {
  size_t keep_from = pending_.size();
  if (!final && !stopped_) {
    for (size_t i = pending_.size() - std::min(pending_.size(), hold_back_); i < pending_.size(); ++i) {
      std::string_view tail = std::string_view(pending_).substr(i);
      if (std::ranges::any_of(options_.stop, [&](const std::string& s) { return s.starts_with(tail); })) {
        keep_from = i;
        break;
      }
    }
  }
  std::string out = pending_.substr(0, keep_from);
  pending_.erase(0, keep_from);
  return out;
}

std::string Detokenizer::finish() {
  if (stopped_) return "";
  pending_ += replace_invalid_utf8(bytes_);
  bytes_.clear();
  return release(true);
}

}  // namespace baton::text
