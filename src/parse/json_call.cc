#include "parse/json_call.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "base/json.h"
#include "parse/limits.h"

namespace baton::parse {

bool is_function_name(std::string_view s) {
  return !s.empty() && s.size() <= kNameBytesMax &&
         std::ranges::all_of(s, [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == '-' || c == '.'; });
}

JsonExtent::State JsonExtent::feed(char c) {
  if (string_) {
    if (escape_)
      escape_ = false;
    else if (c == '\\')
      escape_ = true;
    else if (c == '"')
      string_ = false;
    return string_ || !open_.empty() ? State::kMore : State::kDone;
  }
  if (c == '"') {
    string_ = true;
  } else if (c == '{' || c == '[') {
    open_ += c == '{' ? '}' : ']';
    if (open_.size() > kNestingMax) return State::kBad;
  } else if (c == '}' || c == ']') {
    if (open_.empty() || open_.back() != c) return State::kBad;
    open_.pop_back();
    if (open_.empty()) return State::kDone;
  }
  return State::kMore;
}

void JsonCall::reset() {
  state_ = State::kStart;
  text_.clear(), key_.clear(), value_.clear(), name_.clear(), arguments_.clear(), id_.clear();
  called_ = streaming_ = has_arguments_ = valid_ = false;
}

bool JsonCall::is_arguments() const {
  return keys_.name.empty() || key_ == keys_.arguments || (!keys_.or_arguments.empty() && key_ == keys_.or_arguments);
}

void JsonCall::begin_value(char c, Events& out) {
  value_.clear();
  const bool keyed = keys_.name.empty();
  if (keyed) name_ = key_;
  if (keyed ? has_arguments_ || c != '{' || name_.empty() || name_.size() > kNameBytesMax : key_ == keys_.name && c != '"') {
    state_ = State::kBad;
    return;
  }
  if (is_arguments() && !has_arguments_ && !name_.empty()) {
    append_call(out, name_, id_);
    called_ = streaming_ = has_arguments_ = true;
  }
  const bool scalar = c != '"' && c != '{' && c != '[';
  state_ = scalar ? State::kInScalar : State::kInValue;
  extent_.reset();
  if (!scalar) (void)extent_.feed(c);
  value_byte(c, out);
}

void JsonCall::value_byte(char c, Events& out) {
  if (streaming_)
    append(out, Event::Kind::kArguments, {&c, 1});
  else
    value_ += c;
}

void JsonCall::end_value() {
  state_ = State::kNext;
  if (std::exchange(streaming_, false)) return;
  if (key_ == keys_.name && name_.empty()) {
    const auto name = parse_json(value_);
    if (name) name_ = name->text;
    if (name_.empty() || name_.size() > kNameBytesMax) state_ = State::kBad;
  } else if (!keys_.id.empty() && key_ == keys_.id) {
    const auto id = parse_json(value_);
    if (id && id->is_string()) id_ = id->text;
  } else if (!has_arguments_ && is_arguments()) {
    has_arguments_ = true;
    arguments_ = value_;
  }
}

void JsonCall::end_object(Events& out) {
  valid_ = has_arguments_ && !name_.empty() && parse_json(text_).has_value();
  state_ = State::kDone;
  if (called_) return;
  if (!valid_) {
    state_ = State::kBad;
    return;
  }
  append_call(out, name_, id_);
  append(out, Event::Kind::kArguments, arguments_);
  called_ = true;
}

void JsonCall::feed(char c, Events& out) {
  text_ += c;
  if (text_.size() > kCallBytesMax) {
    state_ = State::kBad;
    return;
  }
  if (state_ == State::kInScalar && (is_space(c) || c == ',' || c == '}')) end_value();
  const bool space = is_space(c);
  switch (state_) {
    case State::kStart:
      if (!space) state_ = c == '{' ? State::kFirstKey : State::kBad;
      return;
    case State::kFirstKey:
    case State::kKey:
      if (space) return;
      key_.clear();
      extent_.reset();
      if (c == '"') {
        (void)extent_.feed(c);
        key_ += c;
        state_ = State::kInKey;
      } else {
        state_ = State::kBad;
      }
      return;
    case State::kInKey:
      key_ += c;
      if (extent_.feed(c) != JsonExtent::State::kDone) return;
      state_ = State::kColon;
      if (const auto key = parse_json(key_))
        key_ = key->text;
      else
        state_ = State::kBad;
      return;
    case State::kColon:
      if (!space) state_ = c == ':' ? State::kValue : State::kBad;
      return;
    case State::kValue:
      if (!space) c == ',' || c == '}' || c == ']' || c == ':' ? void(state_ = State::kBad) : begin_value(c, out);
      return;
    case State::kInValue: {
      const auto extent = extent_.feed(c);
      if (extent == JsonExtent::State::kBad) {
        state_ = State::kBad;
        return;
      }
      value_byte(c, out);
      if (extent == JsonExtent::State::kDone) end_value();
      return;
    }
    case State::kInScalar:
      value_byte(c, out);
      return;
    case State::kNext:
      if (space) return;
      if (c == ',')
        state_ = State::kKey;
      else if (c == '}')
        end_object(out);
      else
        state_ = State::kBad;
      return;
    case State::kDone:
    case State::kBad:
      return;
  }
}

}  // namespace baton::parse
