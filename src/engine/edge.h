#pragma once
// The HTTP edge around every answer, as the web framework under vLLM puts it there: CORS fields for pages of --allowed-origins,
// the X-Request-Id with --enable-request-id-headers, and http_requests_total and durations by route in /metrics. Lives as long as
// its request, on the request's I/O thread. Source: Fetch standard (CORS protocol); facts sheet "engine" 1.1, 2.4.
#include <optional>
#include <string>
#include <string_view>

#include "engine/serving.h"
#include "net/http.h"

namespace baton::engine {

// What a browser asks before a page of another origin may call: answered here, whatever the path. nullopt: an ordinary request.
std::optional<net::Response> preflight(const EngineConfig& config, const net::Request& request);

class EdgeWriter final : public net::ResponseWriter {
 public:
  EdgeWriter(const Serving& serving, const net::Request& request, net::ResponseWriter& inner);
  EdgeWriter(const EdgeWriter&) = delete;
  ~EdgeWriter() override { count(); }

  void handled_by(std::string_view route) { route_ = route; }  // a path of the route table

  net::Task<Result<>> send(net::Response response) override;
  net::Task<Result<>> begin(int status, net::Headers headers) override;
  net::Task<Result<>> write(std::string_view bytes) override { return inner_.write(bytes); }
  net::Task<Result<>> finish() override;
  bool started() const override { return inner_.started(); }
  net::Cancel& cancel() override { return inner_.cancel(); }

 private:
  void add_fields(net::Headers& headers) const;
  void count();  // once: before the last byte goes out, so that who has the answer and then scrapes finds it

  const Serving& s_;
  net::ResponseWriter& inner_;
  const std::string method_, origin_, request_id_;
  const int64_t begin_ns_;
  std::string_view route_ = "none";
  int status_ = 0;
  bool counted_ = false;
};

}  // namespace baton::engine
