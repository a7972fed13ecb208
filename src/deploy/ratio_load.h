#pragma once
// What model servers' own counters say of the load of a role: LoadMeter takes a look at all of them every few seconds and tells
// the rates of the last `window_ms`. A server that comes, goes or starts anew never makes a rate jump: only what grew between two
// looks at the same process counts. Metric names are vLLM's, which baton-engine has too. Pure. Units: tokens, seconds.
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cost/cost.h"
#include "cost/workers.h"

namespace baton::deploy {

struct Counters {  // since the process began
  double requests = 0, prompt_tokens = 0, cached_tokens = 0, answer_tokens = 0;
  double step_s = 0, steps = 0;  // time between two tokens of a stream: sum and number
};

struct ServerNumbers {
  std::string pod;
  Counters counters;
  int waiting = 0, running = 0;
  double kv_usage = 0;    // 0 to 1
  int64_t kv_tokens = 0;  // room; 0: not said
};

// Errors: a family that is missing, by name.
Result<ServerNumbers> read_server(std::string pod, std::string_view metrics);

struct RoleLoad {
  double requests_s = 0, prompt_tokens = 0, answer_tokens_s = 0,
         answer_tokens = 0;         // prompt: of one, to be computed; answer: of one
  double waiting = 0, running = 0;  // over all servers, latest look
  double context = 0;               // of a running stream; 0: none runs
  int64_t kv_tokens = 0;            // of the smallest server
};

class LoadMeter {
 public:
  explicit LoadMeter(int64_t window_ms) : window_ms_(window_ms) {}
  void look(int64_t now_ms, std::vector<ServerNumbers> servers);
  std::optional<RoleLoad> load() const;  // nullopt: not two looks yet
  // How long steps took, for cost::calibrated(): of prefill while prompts waited all the time, of decode by the streams that ran.
  const std::vector<cost::Sample>& prefill_samples() const { return prefill_samples_; }
  const std::vector<cost::Sample>& decode_samples() const { return decode_samples_; }

 private:
  struct Span {
    int64_t from_ms = 0, to_ms = 0;
    Counters grew;
  };
  void sample(const ServerNumbers& before, const ServerNumbers& now, const Counters& grew, int64_t elapsed_ms);

  int64_t window_ms_;
  int64_t looked_ms_ = -1;
  std::map<std::string, ServerNumbers> last_;  // by pod
  std::deque<Span> spans_;
  std::vector<cost::Sample> prefill_samples_, decode_samples_;  // the newest kSamplesKept
};

// Both roles' loads as the cost model's: prompts are prefill's, answers decode's.
cost::PoolLoad pool_load(const RoleLoad& prefill, const RoleLoad& decode);

}  // namespace baton::deploy
