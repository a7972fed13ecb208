#include <algorithm>

#include "net/http.h"
#include "wire/errors.h"

namespace baton::net {
namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

}  // namespace

bool same_header_name(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) { return lower(x) == lower(y); });
}

bool is_hop_by_hop(std::string_view name) {
  static constexpr std::string_view kNames[] = {"connection", "keep-alive", "proxy-connection",   "transfer-encoding",  "te",
                                                "trailer",    "upgrade",    "proxy-authenticate", "proxy-authorization"};
  return std::ranges::any_of(kNames, [name](std::string_view n) { return same_header_name(n, name); });
}

std::optional<std::string_view> Headers::get(std::string_view name) const {
  for (const auto& [key, value] : fields_) {
    if (same_header_name(key, name)) return value;
  }
  return std::nullopt;
}

std::vector<std::string_view> Headers::get_all(std::string_view name) const {
  std::vector<std::string_view> values;
  for (const auto& [key, value] : fields_) {
    if (same_header_name(key, name)) values.push_back(value);
  }
  return values;
}

void Headers::set(std::string_view name, std::string_view value) {
  remove(name);
  add(name, value);
}

void Headers::add(std::string_view name, std::string_view value) { fields_.emplace_back(name, value); }

bool Headers::remove(std::string_view name) {
  return std::erase_if(fields_, [name](const auto& field) { return same_header_name(field.first, name); }) > 0;
}

void Cancel::cancel() {
  if (cancelled_) return;
  cancelled_ = true;
  for (auto& weak : std::exchange(listeners_, {})) {
    if (auto f = weak.lock()) (*f)();
  }
}

std::shared_ptr<void> Cancel::on_cancel(std::function<void()> f) {
  auto listener = std::make_shared<std::function<void()>>(std::move(f));
  if (cancelled_) {
    (*listener)();
  } else {
    std::erase_if(listeners_, [](const auto& weak) { return weak.expired(); });
    listeners_.push_back(listener);
  }
  return listener;
}

Response Response::text(int status, std::string body) {
  return {.status = status, .headers = {{"content-type", "text/plain; charset=utf-8"}}, .body = std::move(body)};
}

Response Response::json(int status, std::string body) {
  return {.status = status, .headers = {{"content-type", "application/json"}}, .body = std::move(body)};
}

}  // namespace baton::net
