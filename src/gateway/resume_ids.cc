// Token ids in a worker's events: read for us, and taken out of what the client sees.
#include <charconv>

#include "gateway/limits.h"
#include "gateway/resume.h"

namespace baton::gateway {
namespace {

constexpr std::string_view kPromptKey = "\"prompt_token_ids\":", kKey = "\"token_ids\":";

size_t past_spaces(std::string_view s, size_t at) {
  while (at < s.size() && s[at] == ' ') ++at;
  return at;
}

// Behind the array of ids that begins at `at`, which are appended to `ids`; npos if it is none.
size_t read_ids(std::string_view s, size_t at, std::vector<int32_t>& ids) {
  at = past_spaces(s, at);
  if (at >= s.size() || s[at] != '[') return std::string_view::npos;
  at = past_spaces(s, at + 1);
  if (at < s.size() && s[at] == ']') return at + 1;
  for (;;) {
    int32_t id = 0;
    const auto [end, error] = std::from_chars(s.data() + at, s.data() + s.size(), id);
    if (error != std::errc()) return std::string_view::npos;
    ids.push_back(id);
    at = past_spaces(s, static_cast<size_t>(end - s.data()));
    if (at < s.size() && s[at] == ']') return at + 1;
    if (at >= s.size() || s[at] != ',') return std::string_view::npos;
    at = past_spaces(s, at + 1);
  }
}

// Cuts the member `key` and one comma beside it out of the event, all of them there are. A key with its quotes cannot stand
// inside a JSON string, whose own quotes are escaped.
void cut_member(std::string& event, std::string_view key, std::vector<int32_t>& ids) {
  for (size_t at = 0; (at = event.find(key, at)) != std::string::npos;) {
    const size_t before = ids.size();
    size_t end = read_ids(event, at + key.size(), ids);
    if (end == std::string_view::npos) {  // null, or nothing we know
      ids.resize(before);
      at += key.size();
      continue;
    }
    size_t begin = at;
    while (begin > 0 && event[begin - 1] == ' ') --begin;
    if (begin > 0 && event[begin - 1] == ',') {
      --begin;
    } else {
      begin = at;
      if (const size_t next = past_spaces(event, end); next < event.size() && event[next] == ',')
        end = past_spaces(event, next + 1);
    }
    event.erase(begin, end - begin);
    at = begin;
  }
}

}  // namespace

// The event as the client sees it, valid until the next call; its ids in event_prompt_ids_ and event_ids_.
std::string_view Resume::without_ids(std::string_view event) {
  event_prompt_ids_.clear(), event_ids_.clear();
  if (event.find("token_ids\":") == std::string_view::npos) return event;
  cut_ = event;
  cut_member(cut_, kPromptKey, event_prompt_ids_);
  cut_member(cut_, kKey, event_ids_);
  return cut_;
}

void Resume::note_ids(bool text_grew) {
  if (!ids_good_) return;
  if (prompt_ids_.empty()) prompt_ids_ = std::move(event_prompt_ids_);
  ids_.insert(ids_.end(), event_ids_.begin(), event_ids_.end());
  if (text_grew) {
    settled_ = ids_.size();
    spoken_ids_.insert(spoken_ids_.end(), event_ids_.begin(), event_ids_.end());
  }
  if (ids_.size() <= kResumeIdsMax) return;
  ids_good_ = false;
  ids_ = {}, prompt_ids_ = {}, spoken_ids_ = {};
}

}  // namespace baton::gateway
