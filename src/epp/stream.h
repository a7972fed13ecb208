#pragma once
// Stream: one HTTP request as Envoy's external processing shows it: messages in, answers out, a picker::Flight in between.
//   request_headers -> request_body* -> [request_trailers] => destination (header and metadata) and the body back
//   response_headers -> response_body* -> [response_trailers] => the same back, chunk by chunk
// Every body mode is answered as that mode wants it: with full duplex and buffered bodies the request is decided when its body is
// complete; where the proxy shows less of it, by the beginning that it shows (kStreamedBytes), or by the headers alone.
// Guarantees: whatever the messages, in whatever order, no answer to what was not asked, at most one ImmediateResponse, and the
// Flight ends with the call. Of a request's body at most kBodyAheadBytes and a piece are queued beside the Flight's copy, however
// slowly the proxy takes them. Thread: the call's. Door: what the streams of one I/O thread share.
// Source: facts sheet "epp" 1.2-1.6.
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "epp/messages.h"
#include "epp/stream_metrics.h"
#include "net/grpc.h"
#include "picker/picker.h"

namespace baton::epp {

class Stream;

struct DoorOptions {
  int64_t body_timeout_ms = 60'000;
  bool echo_headers = false;
};

class Door {
 public:
  Door(picker::Picker& picker, const Clock& clock, StreamMetrics& metrics, DoorOptions options)
      : picker(picker), clock(clock), metrics(metrics), options(options) {}
  void sweep();  // ends requests whose body stalled; call it now and then

  picker::Picker& picker;
  const Clock& clock;
  StreamMetrics& metrics;
  const DoorOptions options;

 private:
  friend class Stream;
  struct Waiting {
    Stream* stream;
    int64_t since_ns;
  };
  std::list<Waiting> waiting_;  // for more of a body; the longest silent first
  ProtoWriter message_;         // the answer being written; kept for its memory
};

class Stream final : public net::GrpcHandler {
 public:
  Stream(Door& door, net::GrpcCall& call);
  ~Stream() override;
  void on_message(std::string_view bytes) override;
  void on_half_close() override;
  void on_room() override;
  void on_closed() override;

 private:
  friend class Door;
  enum class State : uint8_t { kHead, kBody, kDeciding, kForwarded, kOver };

  void on_request_headers(const Inbound& in);
  void on_request_body(const Inbound& in);
  void on_request_trailers();
  void on_response_headers(const Inbound& in);
  void on_response_body(const Inbound& in);
  void on_response_trailers();

  bool keep_head(const Inbound& in);
  bool unfit(std::string_view what);  // the call ends; returns false
  void note_subset(const Inbound& in);
  void without_body();
  void decide();
  void decide_unseen();
  void go_on();
  void forward(const picker::Choice& choice);
  bool client_said(std::string_view name) const;
  void add_own_headers(std::vector<SetHeader>& set) const;
  void refuse(const picker::Refusal& refusal);
  void body_stalled();
  void send_body();
  void body_sent();
  void send_pieces(Part part, std::string_view bytes, bool end);
  void pass_on(std::string_view bytes, std::string_view out_bytes, bool end);
  void answer_ended();
  void wait_for_body();
  void stop_waiting();
  void drop_head();
  template <class F>
  void send(F write);

  Door& door_;
  net::GrpcCall& call_;
  std::unique_ptr<picker::Flight> flight_;  // none for requests that are routed without their body
  State state_ = State::kHead;
  Modes modes_;
  bool own_request_id_ = false, trailers_ = false, sending_ = false;  // of the request
  bool chosen_ = false, answer_headers_seen_ = false, answer_ended_ = false, finished_ = false;
  int status_ = 0;
  Code code_ = Code::kOk;
  int64_t started_ns_;
  int unanswered_ = 0;                       // pieces of a streamed body that came before its head was answered
  size_t streamed_bytes_ = 0;                // in them
  size_t body_sent_ = 0;                     // of the request's body; the rest waits for room
  std::string head_bytes_;                   // the HeaderMap, names in lower case; until the request was decided
  std::vector<picker::HeaderField> fields_;  // into head_bytes_
  std::string_view method_, path_, request_id_;
  std::string request_id_text_;
  picker::Subset subset_;
  std::optional<std::list<Door::Waiting>::iterator> waits_;
};

}  // namespace baton::epp
