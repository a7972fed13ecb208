#pragma once
// StatusView: what `baton up` shows. On a terminal one block of lines that is redrawn; piped, one plain line per change of state.
// It never waits for its reader: who does not read misses lines, and learns how many; the stack goes on.
#include <string>
#include <string_view>
#include <vector>

namespace baton::stack {

struct WorkerStatus {
  std::string name, state;  // state: "starting", "loading 40%", "ready", "restarting", "stopped"
  int port = 0;
  double running = 0, waiting = 0, kv_usage = 0, prompt_tokens = 0, generated_tokens = 0;  // engines, from /metrics
  bool is_engine = false;
  int restarts = 0;
};

// Value of the first sample named `name`, whatever its labels, or `fallback`.
double first_sample(std::string_view text, std::string_view name, double fallback);
// Reads the few samples the status shows out of Prometheus text; absent ones stay.
void read_metrics(std::string_view text, WorkerStatus& out);
// Endpoints that a router's text says it can send requests to.
int endpoints_up(std::string_view text);

class StatusView {
 public:
  explicit StatusView(bool terminal) : terminal_(terminal) {}
  void event(std::string_view line);                                        // something happened: always one line
  void draw(std::string_view title, const std::vector<WorkerStatus>& all);  // terminal only
  void close();                                                             // leave the block on the screen

 private:
  void erase();
  bool terminal_;
  size_t lines_ = 0;
  int missed_ = 0;
};

}  // namespace baton::stack
