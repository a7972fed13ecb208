#pragma once
// KubeTiming: every wait of the Kubernetes client, as a value so that tests make them short. Defaults follow client-go where it
// has one: 1 s to 30 s backoff, 5 to 10 min watches, a bookmark about every minute.
#include <chrono>

namespace baton::discovery {

struct KubeTiming {
  std::chrono::milliseconds connect_timeout{5'000};
  std::chrono::milliseconds answer_timeout{30'000};  // until a response's head; a list may be slow
  std::chrono::milliseconds body_timeout{30'000};    // between bytes of a list
  std::chrono::milliseconds watch_quiet{120'000};    // a watch without an event or bookmark is taken for a dead connection
  std::chrono::seconds watch_min{300};               // the server ends a watch after watch_min to twice of it
  std::chrono::milliseconds backoff_min{1'000}, backoff_max{30'000};  // doubled per failure, half of it random
  std::chrono::milliseconds probe_missing{120'000};                   // how often a kind that is not installed is looked for
  std::chrono::milliseconds resync{3'600'000};                        // a whole new list that often, in case an event was lost
  std::chrono::milliseconds publish{50};                              // at most one ClusterState per this
  std::chrono::milliseconds token_age{60'000};                        // a token file is read again after this
  std::chrono::milliseconds exec_timeout{20'000};                     // of a credential plugin
};

}  // namespace baton::discovery
