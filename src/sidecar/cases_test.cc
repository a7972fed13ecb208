// Plays tests/cases/sidecar/*.case (README there says how they are written).
#include <filesystem>
#include <fstream>

#include "sidecar/fake_worker.h"
#include "sidecar/sidecar.h"

namespace baton::sidecar {
namespace {

struct Section {
  std::string name;
  std::vector<std::string> lines;
};

std::vector<Section> read_case(const std::filesystem::path& path) {
  std::vector<Section> sections;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("--- ")) {
      sections.push_back({line.substr(4), {}});
    } else if (!sections.empty()) {
      sections.back().lines.push_back(line);
    } else {
      BATON_CHECK(line.starts_with('#'));
    }
  }
  return sections;
}

using Names = std::vector<std::pair<std::string, std::string>>;

Message read_message(const Section& section, const Names& names) {
  Message message;
  size_t i = 0;
  if (i < section.lines.size()) message.first_line = section.lines[i++];
  for (; i < section.lines.size() && !section.lines[i].empty(); ++i) {
    const std::string& line = section.lines[i];
    size_t colon = line.find(':');
    BATON_CHECK(colon != std::string::npos);
    std::string value = line.substr(std::min(line.size(), colon + 2));
    for (const auto& [word, stands_for] : names) {
      for (size_t at = 0; (at = value.find(word, at)) != std::string::npos; at += stands_for.size()) {
        value.replace(at, word.size(), stands_for);
      }
    }
    message.headers.emplace_back(line.substr(0, colon), value);
  }
  bool events = message.says("events");
  for (++i; i < section.lines.size(); ++i) {
    message.body += section.lines[i] + (events ? "\n\n" : "\n");
  }
  if (!events && !message.body.empty()) message.body.pop_back();
  return message;
}

int closed_port() {
  FakeWorker worker("closed");
  return worker.port();
}

class Cases : public testing::TestWithParam<std::filesystem::path> {};

TEST_P(Cases, Holds) {
  FakeWorker prefill("prefill"), prefill2("prefill2"), decode("decode");
  auto at = [](int port) { return cat("127.0.0.1:", port); };
  // PREFILL2 first: the shorter word is its prefix.
  Names names{{"PREFILL2", at(prefill2.port())}, {"PREFILL", at(prefill.port())}, {"DOWN", at(closed_port())}};
  SidecarConfig config;
  config.port = 0, config.host = "127.0.0.1", config.model_server_port = decode.port();
  Message sends, gets;
  FakeWorker::Turn turn;
  for (const Section& section : read_case(GetParam())) {
    if (section.name == "flags") {
      auto parsed = sidecar_options(config).parse(section.lines);
      ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
      continue;
    }
    Message message = read_message(section, names);
    if (section.name == "client sends") sends = message;
    if (section.name == "client gets") gets = message;
    if (section.name.ends_with(" expects")) turn.expects = message;
    if (section.name.ends_with(" answers")) {
      turn.answers = message;
      FakeWorker& worker = section.name == "decode answers" ? decode : section.name == "prefill2 answers" ? prefill2 : prefill;
      worker.expect(turn);
    }
  }
  Sidecar sidecar(config);
  auto started = sidecar.start();
  ASSERT_TRUE(started.has_value()) << started.error().message;
  Result<net::Response> response = fail(Code::kUnknown, "not run");
  net::run_task([&]() -> net::Task<> {
    net::Client client;
    net::Call call;
    call.host = "127.0.0.1", call.port = sidecar.port();
    size_t space = sends.first_line.find(' ');
    call.method = sends.first_line.substr(0, space), call.target = sends.first_line.substr(space + 1);
    for (const auto& [name, value] : sends.headers) call.headers.add(name, value);
    call.body = sends.body;
    response = co_await client.fetch(call);
  });
  ASSERT_TRUE(response.has_value()) << response.error().message;
  EXPECT_EQ(response->status, gets.status()) << response->body;
  EXPECT_EQ(header_complaints(response->headers, gets), "");
  if (!gets.body.empty()) EXPECT_EQ(response->body, gets.body);
  for (FakeWorker* worker : {&prefill, &prefill2, &decode}) EXPECT_EQ(worker->complaints(), "");
  sidecar.stop();
}

std::vector<std::filesystem::path> all_cases() {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(BATON_SOURCE_DIR "/tests/cases/sidecar")) {
    if (entry.path().extension() == ".case") paths.push_back(entry.path());
  }
  std::ranges::sort(paths);
  return paths;
}

INSTANTIATE_TEST_SUITE_P(Sidecar, Cases, testing::ValuesIn(all_cases()),
                         [](const auto& info) { return info.param.stem().string(); });

}  // namespace
}  // namespace baton::sidecar
