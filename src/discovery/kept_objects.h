#pragma once
// KeptObjects<T>: a Store that keeps what `parse` makes of each object, by name, and knows whether anything changed.
// An object that cannot be parsed keeps its last good form, with one log line per text of the error. At most `max` objects; more
// are counted and logged once. Thread: its reflector's.
#include <map>
#include <set>
#include <string>

#include "base/log.h"
#include "discovery/reflector.h"

namespace baton::discovery {

template <class T>
class KeptObjects final : public Store {
 public:
  KeptObjects(std::string kind, size_t max, std::function<Result<T>(const Json&)> parse)
      : kind_(std::move(kind)), max_(max), parse_(std::move(parse)) {}

  const std::map<std::string, T>& all() const { return objects_; }
  bool take_changed() { return std::exchange(changed_, false); }

  void list_began() override {
    listed_.clear();
    listing_ = true;
  }

  void put(const Json& object) override {
    const Json* name = object.find_path({"metadata", "name"});
    if (!name || !name->is_string() || name->text.empty()) return;
    const auto at = objects_.find(name->text);
    if (at == objects_.end() && objects_.size() >= max_) {
      if (!std::exchange(full_, true))
        log_error("too many kubernetes objects, the rest is ignored", "kind={} max={}", kind_, max_);
      return;
    }
    if (listing_) listed_.insert(name->text);
    auto parsed = parse_(object);
    if (!parsed) return refuse(name->text, parsed.error().message);
    if (at == objects_.end()) {
      objects_.emplace(name->text, *std::move(parsed));
    } else if (at->second == *parsed) {
      return;
    } else {
      at->second = *std::move(parsed);
    }
    changed_ = true;
  }

  void erase(const Json& object) override {
    const Json* name = object.find_path({"metadata", "name"});
    if (name && objects_.erase(name->text) > 0) changed_ = true;
  }

  void list_ended() override {
    listing_ = full_ = false;
    if (std::erase_if(objects_, [&](const auto& item) { return !listed_.contains(item.first); }) > 0) changed_ = true;
    listed_.clear();
  }

 private:
  void refuse(const std::string& name, const std::string& why) {
    std::string text = name + ": " + why;
    if (text != refused_) log_error("kubernetes object cannot be used, keeping its last good form", "kind={} {}", kind_, text);
    refused_ = std::move(text);
  }

  std::string kind_;
  size_t max_;
  std::function<Result<T>(const Json&)> parse_;
  std::map<std::string, T> objects_;
  std::set<std::string> listed_;
  std::string refused_;
  bool listing_ = false, changed_ = false, full_ = false;
};

}  // namespace baton::discovery
