// Any bytes, cut anywhere, as a watch: what comes out does not depend on the cuts, and nothing kept is over its limit.
#include <cstdint>
#include <cstdlib>

#include "discovery/kube_objects.h"
#include "discovery/watch_decoder.h"

namespace {

constexpr size_t kEventMax = 4096;

std::string run(std::string_view text, size_t step) {
  baton::discovery::WatchDecoder decoder(kEventMax);
  std::vector<baton::discovery::WatchEvent> events;
  bool good = true;
  for (size_t at = 0; good && at < text.size(); at += step) {
    good = decoder.feed(text.substr(at, step), events).has_value();
    if (decoder.kept_bytes() > kEventMax) std::abort();
  }
  std::string seen = good ? "good" : "bad";
  for (const auto& event : events) {
    seen += baton::cat(static_cast<int>(event.type), ' ', event.version, ' ', event.error_code, ';');
    if (const auto pod = baton::discovery::parse_pod(event.object)) seen += pod->name;
    if (const auto pool = baton::discovery::parse_pool(event.object, "g")) {
      if (pool->ports.empty() || pool->ports.size() > 8 || pool->selector.empty()) std::abort();
    }
    (void)baton::discovery::parse_objective(event.object);
    (void)baton::discovery::parse_rewrite(event.object);
  }
  return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  if (run(text, text.size() + 1) != run(text, data[0] % 64 + 1)) std::abort();
  return 0;
}
