#include "picker/answer_reader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/json.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace baton::picker {
namespace {

constexpr std::string_view kUsage = "\"usage\"", kModel = "\"model\"";

// Both words have seven bytes, begin and end with a quote, and differ in the second.
size_t find_word(std::string_view text, std::string_view word, size_t from) {
  const char* const base = text.data();
  size_t i = from;
#ifdef __SSE2__
  const __m128i first = _mm_set1_epi8(word[1]), last = _mm_set1_epi8('"');
  constexpr size_t kStep = 16, kReach = kStep + 6;
  for (; i + kReach <= text.size(); i += kStep) {
    const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(base + i + 1));
    const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(base + i + 6));
    auto mask = static_cast<unsigned>(_mm_movemask_epi8(_mm_and_si128(_mm_cmpeq_epi8(a, first), _mm_cmpeq_epi8(b, last))));
    for (; mask != 0; mask &= mask - 1) {
      const size_t at = i + static_cast<size_t>(__builtin_ctz(mask));
      if (std::memcmp(base + at, word.data(), word.size()) == 0) return at;
    }
    // The last step overlaps the one before it.
    if (i + kReach < text.size() && i + kReach + kStep > text.size()) i = text.size() - kReach - kStep;
  }
  if (i > from) return std::string_view::npos;
#endif
  return text.find(word, i);
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// The object that begins at text[0] == '{', braces in strings aside; empty if it is not closed.
std::string_view object_at(std::string_view text) {
  int depth = 0;
  bool string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (string) {
      if (c == '\\') ++i;
      if (c == '"') string = false;
    } else if (c == '"') {
      string = true;
    } else if (c == '{') {
      ++depth;
    } else if (c == '}' && --depth == 0) {
      return text.substr(0, i + 1);
    }
  }
  return {};
}

void skip_space(std::string_view& text) {
  while (!text.empty() && (text[0] == ' ' || text[0] == '\t' || text[0] == '\n' || text[0] == '\r')) text.remove_prefix(1);
}

// "key": 12 pairs of an object, at any depth; no two keys of one name mean different things in a usage block.
template <class F>
void each_number(std::string_view object, F f) {
  for (size_t i = object.find('"'); i != std::string_view::npos; i = object.find('"', i)) {
    const size_t end = object.find('"', i + 1);
    if (end == std::string_view::npos) return;
    const std::string_view key = object.substr(i + 1, end - i - 1);
    i = end + 1;
    std::string_view rest = object.substr(i);
    skip_space(rest);
    if (rest.empty() || rest[0] != ':') continue;
    rest.remove_prefix(1);
    skip_space(rest);
    int64_t v = 0;
    size_t n = 0;
    while (n < rest.size() && n < 15 && is_digit(rest[n])) v = v * 10 + (rest[n++] - '0');
    const char after = n < rest.size() ? rest[n] : ',';
    if (n > 0 && !is_digit(after) && after != '.' && after != 'e' && after != 'E') f(key, v);
  }
}

}  // namespace

AnswerReader::AnswerReader(AnswerOptions options) : options_(std::move(options)) {
  renames_ = !options_.served.empty() && !options_.asked.empty() && options_.served != options_.asked;
  if (!renames_) return;
  find_ = json_string(options_.served);
  replace_ = json_string(options_.asked);
}

std::string_view AnswerReader::pass(std::string_view bytes, bool last) {
  events_ = 0;
  if (options_.stream || options_.usage) look(bytes, last);
  return renames_ ? rename(bytes, last) : bytes;
}

void AnswerReader::look(std::string_view bytes, bool last) {
  if (!options_.stream) {
    hold_line(bytes);
    if (last) take_usage(std::exchange(line_, {}));
    return;
  }
  while (!bytes.empty()) {
    const void* newline = std::memchr(bytes.data(), '\n', bytes.size());
    if (newline == nullptr) {
      hold_line(bytes);
      break;
    }
    const auto n = static_cast<size_t>(static_cast<const char*>(newline) - bytes.data());
    if (line_.empty()) {
      line(bytes.substr(0, n));
    } else {
      hold_line(bytes.substr(0, n));
      line(line_);
      line_.clear();
    }
    bytes.remove_prefix(n + 1);
  }
  if (last && !line_.empty()) line(std::exchange(line_, {}));
  events_total_ += events_;
}

// Keeps the beginning of a line, which says what it is, and its end, where usage lies. A JSON answer is one line without a use for
// its beginning.
void AnswerReader::hold_line(std::string_view part) {
  constexpr size_t kHeadBytes = 128;
  line_.append(part.size() > kAnswerLineBytesMax ? part.substr(0, kHeadBytes) : std::string_view());
  if (part.size() > kAnswerLineBytesMax) part.remove_prefix(part.size() - kAnswerTailBytesMax);
  line_.append(part);
  if (line_.size() <= kAnswerLineBytesMax + kAnswerTailBytesMax) return;
  line_.erase(kHeadBytes, line_.size() - kHeadBytes - kAnswerTailBytesMax);
}

void AnswerReader::line(std::string_view text) {
  if (!text.starts_with("data:")) return;
  text.remove_prefix(5);
  skip_space(text);
  if (text.empty()) return;
  if (text[0] != '{') {
    if (text.starts_with("[DONE]")) done_ = true;
    return;
  }
  // Anthropic's and Responses' events name their type first; only their deltas carry output.
  constexpr std::string_view kType = "{\"type\":";
  bool output = true;
  if (text.starts_with(kType)) {
    std::string_view type = text.substr(kType.size());
    skip_space(type);
    if (type.starts_with('"')) type.remove_prefix(1);
    type = type.substr(0, type.find('"'));
    output = type.ends_with("delta") && type != "message_delta";
    if (type == "response.completed" || type == "message_stop") done_ = true;
    if (output) {
      ++events_;
      return;
    }
  }
  const Usage before = usage_;
  if (options_.usage) take_usage(text);
  // The chunk that brings the counts has no choices.
  if (output && usage_ != before && text.find("\"choices\":[]") != std::string_view::npos) output = false;
  events_ += output;
}

void AnswerReader::take_usage(std::string_view text) {
  std::string_view found;
  for (size_t at = find_word(text, kUsage, 0); at != std::string_view::npos; at = find_word(text, kUsage, at + 1)) {
    std::string_view rest = text.substr(at + kUsage.size());
    skip_space(rest);
    if (rest.empty() || rest[0] != ':') continue;
    rest.remove_prefix(1);
    skip_space(rest);
    if (rest.empty() || rest[0] != '{') continue;
    if (const std::string_view object = object_at(rest); !object.empty()) found = object;
  }
  if (found.empty()) return;
  int64_t prompt = 0, completion = 0, total = 0;
  each_number(found, [&](std::string_view key, int64_t v) {
    if (key == "prompt_tokens" || key == "input_tokens") prompt = v;
    if (key == "completion_tokens" || key == "output_tokens") completion = v;
    if (key == "total_tokens") total = v;
    if (key != "cached_tokens" && key != "cache_read_input_tokens") return;
    usage_.cached_seen = true;
    if (v > 0) usage_.cached = v;
  });
  usage_.seen = true;
  if (prompt > 0) usage_.prompt = prompt;
  if (completion > 0) usage_.completion = completion;
  usage_.total = prompt > 0 && completion > 0 && total > 0 ? total : usage_.prompt + usage_.completion;
}

std::string_view AnswerReader::rename(std::string_view bytes, bool last) {
  out_.clear();
  if (held_.empty()) {
    const size_t done = rename_into(bytes, last);
    if (done < bytes.size()) held_ = bytes.substr(done);
  } else {
    std::string all = std::exchange(held_, {});
    all += bytes;
    const size_t done = rename_into(all, last);
    held_ = all.substr(done);
  }
  return out_;
}

// Appends what can be said of bytes to out_; returns how much of them that is. The rest may be the beginning of a name to replace.
size_t AnswerReader::rename_into(std::string_view bytes, bool last) {
  size_t from = 0;
  for (size_t at = find_word(bytes, kModel, 0); at != std::string_view::npos; at = find_word(bytes, kModel, std::max(at + 1, from))) {
    std::string_view rest = bytes.substr(at + kModel.size());
    const std::string_view colon = rest.starts_with(": ") ? ": " : ":";
    if (rest.starts_with(':')) rest.remove_prefix(colon.size());
    const bool cut = rest.size() < find_.size() && find_.starts_with(rest);  // and nothing else follows in this piece
    if (cut && !last && (rest.empty() || bytes[at + kModel.size()] == ':')) {
      out_.append(bytes, from, at - from);
      return at;
    }
    if (bytes.size() <= at + kModel.size() || bytes[at + kModel.size()] != ':' || !rest.starts_with(find_)) continue;
    const auto name = static_cast<size_t>(rest.data() - bytes.data());
    out_.append(bytes, from, name - from);
    out_ += replace_;
    from = name + find_.size();
  }
  size_t end = bytes.size();
  if (!last) {
    for (size_t n = std::min(kModel.size() - 1, end - from); n > 0; --n) {
      if (bytes.ends_with(kModel.substr(0, n))) {
        end -= n;
        break;
      }
    }
  }
  out_.append(bytes, from, end - from);
  return end;
}

}  // namespace baton::picker
