#pragma once
// Exchange: one request through the sidecar. Without a prefiller named it is passed to the engine as it came; with one:
//
//   client --body--> sidecar --max_tokens=1, do_remote_decode--> prefiller
//                    sidecar <--kv_transfer_params------------- prefiller
//                    sidecar --body + kv_transfer_params------> engine --tokens--> client
//
// A prefiller that cannot serve is handled by --on-prefill-failure; a 4xx of its own judgement goes to the client, because the
// engine would say the same. The client's leaving cancels whichever leg runs. Nothing is sent to the client before the engine's
// first body byte, so that a dead engine is a 503 the gateway can retry elsewhere. Source: facts sheet "kv_transfer" 1.6, 8.5.
// Owner: the handler's frame; one I/O thread.
#include <atomic>

#include "base/clock.h"
#include "net/http.h"
#include "sidecar/config.h"
#include "sidecar/legs.h"
#include "sidecar/metrics.h"

namespace baton::sidecar {

// What all exchanges use; any thread.
struct Shared {
  explicit Shared(SidecarConfig c) : config(std::move(c)) {}
  const SidecarConfig config;
  SidecarMetrics metrics;
  std::atomic<bool> engine_ready{false};
};

class Exchange {
 public:
  Exchange(Shared& shared, net::Client& client, net::Request& request, net::ResponseWriter& writer);
  net::Task<> run();

 private:
  // How one prefiller did. Exactly one of reply and status != 200 holds.
  struct Prefill {
    std::optional<PrefillReply> reply;
    int status = 502;
    bool unreadable = false;  // 2xx, but no JSON object
    std::string why;
    std::optional<net::Response> response;  // its answer, if it gave one that we do not understand or like
  };

  net::Task<> disaggregate(Api api, std::vector<HostPort> hosts);
  net::Task<Prefill> prefill(const std::string& body, const std::vector<HostPort>& hosts);
  net::Task<Prefill> prefill_with_retries(const std::string& body, const HostPort& host);
  net::Task<Prefill> prefill_once(const std::string& body, const HostPort& host);
  net::Task<> show_failure(Prefill failed);
  net::Task<> decode(std::string_view body, bool rewrite, std::optional<int64_t> cached_tokens);
  net::Task<> pass_on(net::ResponseStream& stream, bool rewrite, std::optional<int64_t> cached_tokens);
  net::Task<> engine_failed(Error error);
  net::Task<Result<>> answer(int status, std::string body);
  net::Headers headers_for_engine() const;
  bool cancelled() const { return writer_.cancel().cancelled(); }
  double ms_since(int64_t ns) const { return static_cast<double>(clock_.now_ns() - ns) * 1e-6; }
  void log_done() const;

  Shared& shared_;
  net::Client& client_;
  net::Request& request_;
  net::ResponseWriter& writer_;
  SteadyClock clock_;
  std::string id_;      // x-request-id of both legs
  std::string log_id_;  // the client's if it sent one: what a person greps for
  bool intercepted_ = false;
  int status_ = 0;  // what the client got
  std::string prefiller_ = "-", note_;
  std::string ttft_;  // our part of the x-baton-ttft header
  double prefill_ms_ = 0, first_byte_ms_ = 0;
};

}  // namespace baton::sidecar
