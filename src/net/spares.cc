#include "net/spares.h"

#include <algorithm>

#include "net/limits.h"

namespace baton::net {

Spares& Spares::here() {
  thread_local Spares spares;
  return spares;
}

void Spares::make_room(std::string& s, size_t more) {
  const size_t needed = s.size() + more;
  if (needed <= s.capacity() || lend(s, more)) return;
  s.reserve(std::max(needed, 2 * s.capacity()));
}

bool Spares::lend(std::string& s, size_t more) {
  const size_t needed = s.size() + more, most = std::max(kSpareLentMin, 4 * needed);
  if (needed <= s.capacity()) return true;
  for (size_t i = kept_.size(); i-- > 0;) {
    if (kept_[i].capacity() < needed || kept_[i].capacity() > most) continue;
    std::string found = std::move(kept_[i]);
    kept_.erase(kept_.begin() + static_cast<ptrdiff_t>(i));
    bytes_ -= found.capacity();
    found.append(s);
    s.swap(found);
    take_back(found);
    return true;
  }
  return false;
}

void Spares::take_back(std::string& s) {
  s.clear();
  if (s.capacity() <= kH2KeptBytes) return;
  if (kept_.size() < kSparesMax && bytes_ + s.capacity() <= kSpareBytesMax) {
    bytes_ += s.capacity();
    kept_.push_back(std::move(s));
  }
  std::string().swap(s);
}

}  // namespace baton::net
