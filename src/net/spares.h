#pragma once
// Spares: memory of queues that have drained, for those about to fill. The queue of a busy stream fills and drains hundreds of
// times a second; growing from nothing each time would copy what it holds at every step. Guarantees: keeps at most kSparesMax
// strings and kSpareBytesMax bytes; never lends one that is far larger than what is asked for, so that a queue whose reader has
// stopped holds little more than it needs. One set a thread, used by that thread alone.
#include <cstddef>
#include <string>
#include <vector>

namespace baton::net {

class Spares {
 public:
  static Spares& here();
  void make_room(std::string& s, size_t more);  // for `more` bytes behind what is in s
  // The same only if a spare is at hand, for lengths that a peer has merely claimed. False: s is as it was.
  bool lend(std::string& s, size_t more);
  void take_back(std::string& s);  // s is empty afterwards; small ones keep their memory

 private:
  std::vector<std::string> kept_;  // what drained last is at the end, and still in the processor's cache
  size_t bytes_ = 0;
};

}  // namespace baton::net
