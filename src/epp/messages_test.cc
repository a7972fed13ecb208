// messages.h against protobuf itself.
#include "epp/messages.h"

#include <gmock/gmock.h>

#include "base/prng.h"
#include "ext_proc.pb.h"

namespace baton::epp {
namespace {

namespace pb = envoy::service::ext_proc::v3;

std::string random_text(Prng& prng, size_t bytes_max) {
  std::string out(prng.below(bytes_max + 1), 0);
  for (char& c : out) c = static_cast<char>('a' + prng.below(26));
  return out;
}

TEST(Messages, RequestsReadAsProtobufWroteThem) {
  Prng prng(11);
  for (int i = 0; i < 300; ++i) {
    pb::ProcessingRequest m;
    const bool headers = prng.below(2) == 0;
    if (headers) {
      auto* h = prng.below(2) == 0 ? m.mutable_request_headers() : m.mutable_response_headers();
      for (uint64_t k = prng.below(30); k-- > 0;) {
        auto* header = h->mutable_headers()->add_headers();
        header->set_key(random_text(prng, 20));
        prng.below(2) == 0 ? header->set_value(random_text(prng, 200)) : header->set_raw_value(random_text(prng, 200));
      }
      h->set_end_of_stream(prng.below(2) == 0);
    } else {
      auto* b = prng.below(2) == 0 ? m.mutable_request_body() : m.mutable_response_body();
      b->set_body(random_text(prng, 5000));
      b->set_end_of_stream(prng.below(2) == 0);
    }
    m.set_observability_mode(prng.below(2) == 0);
    if (prng.below(2) == 0) {
      m.mutable_protocol_config()->set_request_body_mode(static_cast<int>(prng.below(6)));
      m.mutable_protocol_config()->set_response_body_mode(static_cast<int>(prng.below(6)));
      m.mutable_protocol_config()->set_send_body_without_waiting_for_header_response(prng.below(2) == 0);
    }
    const std::string bytes = m.SerializeAsString();
    const auto in = read_request(bytes);
    ASSERT_TRUE(in.has_value());
    EXPECT_EQ(static_cast<int>(in->part), static_cast<int>(m.request_case()));
    EXPECT_EQ(in->observability, m.observability_mode());
    ASSERT_EQ(in->modes.has_value(), m.has_protocol_config());
    if (in->modes) {
      EXPECT_EQ(static_cast<int>(in->modes->request), m.protocol_config().request_body_mode());
      EXPECT_EQ(static_cast<int>(in->modes->response), m.protocol_config().response_body_mode());
    }
    if (!headers) {
      const auto& b = m.has_request_body() ? m.request_body() : m.response_body();
      EXPECT_EQ(in->body, b.body());
      EXPECT_EQ(in->end_of_stream, b.end_of_stream());
      continue;
    }
    const auto& h = m.has_request_headers() ? m.request_headers() : m.response_headers();
    EXPECT_EQ(in->end_of_stream, h.end_of_stream());
    int k = 0;
    EXPECT_TRUE(for_each_header(in->headers, [&](std::string_view key, std::string_view value) {
      const auto& want = h.headers().headers(k++);
      EXPECT_EQ(key, want.key());
      EXPECT_EQ(value, want.raw_value().empty() ? want.value() : want.raw_value());
    }));
    EXPECT_EQ(k, h.headers().headers_size());
  }
}

TEST(Messages, MetadataListsByNamespaceAndKey) {
  pb::ProcessingRequest m;
  auto& fields = *(*m.mutable_metadata_context()->mutable_filter_metadata())["space"].mutable_fields();
  fields["list"].mutable_list_value()->add_values()->set_string_value("a");
  fields["list"].mutable_list_value()->add_values()->set_number_value(1);
  fields["list"].mutable_list_value()->add_values()->set_string_value("b");
  fields["list"].mutable_list_value()->add_values()->mutable_list_value()->add_values()->set_string_value("deep");
  fields["text"].set_string_value("one");
  fields["empty"].mutable_list_value();
  const std::string bytes = m.SerializeAsString();
  const auto in = read_request(bytes);
  ASSERT_TRUE(in.has_value());
  using testing::ElementsAre;
  EXPECT_THAT(metadata_list(in->metadata, "space", "list").value(), ElementsAre("a", "b"));
  EXPECT_THAT(metadata_list(in->metadata, "space", "text").value(), ElementsAre("one"));
  EXPECT_THAT(metadata_list(in->metadata, "space", "empty").value(), ElementsAre());
  EXPECT_FALSE(metadata_list(in->metadata, "space", "none").has_value());
  EXPECT_FALSE(metadata_list(in->metadata, "none", "list").has_value());
}

TEST(Messages, PiecesOfEverySizeAreCanonical) {
  for (size_t size : {0u, 1u, 100u, 127u, 128u, 129u, 16'380u, 16'384u, 62'000u}) {
    for (bool end : {false, true}) {
      const std::string bytes(size, 'x');
      std::string out;
      const StreamedBody message(Part::kResponseBody, bytes, end);
      for (std::string_view piece : message.pieces()) out += piece;
      pb::ProcessingResponse want;
      auto* piece = want.mutable_response_body()->mutable_response()->mutable_body_mutation()->mutable_streamed_response();
      piece->set_body(bytes);
      piece->set_end_of_stream(end);
      EXPECT_EQ(out, want.SerializeAsString()) << size << end;
    }
  }
}

TEST(Messages, TruncationIsRefusedAtEveryByte) {
  pb::ProcessingRequest m;
  auto* header = m.mutable_request_headers()->mutable_headers()->add_headers();
  header->set_key("name");
  header->set_raw_value("value");
  const std::string bytes = m.SerializeAsString();
  for (size_t n = 1; n < bytes.size(); ++n) EXPECT_FALSE(read_request(bytes.substr(0, n)).has_value()) << n;
}

}  // namespace
}  // namespace baton::epp
