#include "wire/splice.h"

#include <algorithm>

namespace baton::wire {
namespace {

// [begin, end) of every member with the space around it: "{ a:1 , b:2 }" -> " a:1 ", " b:2 ". Joined by ',' they are the object.
std::vector<std::string_view> member_texts(std::string_view text, const Json& object) {
  std::vector<std::string_view> members;
  size_t begin = object.begin + 1;
  for (const Json& value : object.items) {
    size_t end = text.find_first_of(",}", value.end);  // only space can stand between
    members.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return members;
}

}  // namespace

Splice& Splice::set(Path path, std::string json) {
  edits_.push_back({std::move(path), std::move(json)});
  return *this;
}

Splice& Splice::erase(Path path) {
  edits_.push_back({std::move(path), std::nullopt});
  return *this;
}

std::string Splice::text() const {
  BATON_CHECK(root_.is_object());
  Edits edits;
  size_t more = 0;
  for (const Edit& edit : edits_) {
    BATON_CHECK(!edit.path.empty());
    edits.push_back(&edit);
    more += 64 + (edit.value ? edit.value->size() : 0);
  }
  std::string out;
  out.reserve(text_.size() + more);
  out += text_.substr(0, root_.begin);
  append_object(out, &root_, edits, 0);
  out += text_.substr(root_.end);
  return out;
}

// The object with the edits whose path goes through it; path[depth] names its members. Null = an object to create.
void Splice::append_object(std::string& out, const Json* object, const Edits& edits, size_t depth) const {
  std::vector<std::string_view> keys;  // the edited ones, once each, in the order first edited
  for (const Edit* edit : edits) {
    if (std::ranges::find(keys, edit->path[depth]) == keys.end()) keys.push_back(edit->path[depth]);
  }
  auto edits_of = [&](std::string_view key) {
    Edits own;
    for (const Edit* edit : edits) {
      if (edit->path[depth] == key) own.push_back(edit);
    }
    return own;
  };
  out += '{';
  const size_t first = out.size();
  auto comma = [&] {
    if (out.size() > first) out += ',';
  };
  std::vector<std::string_view> members = object ? member_texts(text_, *object) : std::vector<std::string_view>();
  for (size_t i = 0; i < members.size(); ++i) {
    std::string_view key = object->keys[i];
    if (std::ranges::find(keys, key) == keys.end()) {
      comma();
      out += members[i];
      continue;
    }
    const Json& old = object->items[i];
    if (object->find(key) != &old) continue;  // a duplicate; readers that take the last one see the edited value
    size_t undo = out.size();
    comma();
    size_t before = static_cast<size_t>(members[i].data() - text_.data());
    out += text_.substr(before, old.begin - before);
    if (!append_value(out, &old, edits_of(key), depth + 1)) {
      out.resize(undo);
      continue;
    }
    out += text_.substr(old.end, before + members[i].size() - old.end);
  }
  for (std::string_view key : keys) {
    if (object && object->find(key)) continue;
    size_t undo = out.size();
    comma();
    append_json_string(out, key);
    out += ':';
    if (!append_value(out, nullptr, edits_of(key), depth + 1)) out.resize(undo);
  }
  out += '}';
}

// What the edits make of one member's value; false if they remove it (or never create it).
bool Splice::append_value(std::string& out, const Json* old, const Edits& edits, size_t depth) const {
  // The last edit of the value as a whole decides what the edits of its members behind it start from.
  bool present = old != nullptr, replaced = false;
  const std::string* value = nullptr;
  Edits inner;
  for (const Edit* edit : edits) {
    if (edit->path.size() > depth) {
      inner.push_back(edit);
      continue;
    }
    inner.clear();
    replaced = true;
    present = edit->value.has_value();
    value = present ? &*edit->value : nullptr;
  }
  bool creates = std::ranges::any_of(inner, [](const Edit* edit) { return edit->value.has_value(); });
  if (replaced && present && !creates) return out += *value, true;
  if (!replaced && present && (old->is_object() || creates)) {
    append_object(out, old->is_object() ? old : nullptr, inner, depth);
    return true;
  }
  if (creates) {
    BATON_CHECK(!value);  // set({"a"}, ...) and then set({"a", "b"}, ...): nobody needs it, so it is not supported
    append_object(out, nullptr, inner, depth);
    return true;
  }
  if (present) out += text_.substr(old->begin, old->end - old->begin);
  return present;
}

}  // namespace baton::wire
