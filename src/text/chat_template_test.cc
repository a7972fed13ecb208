#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <thread>

#include "base/json.h"
#include "text/limits.h"

namespace baton::text {
namespace {

Result<std::string> render(std::string_view source, std::string_view variables = "{}") {
  BATON_TRY(ChatTemplate t, ChatTemplate::compile(source));
  BATON_TRY(Json json, parse_json(variables));
  return t.render(json);
}

// What Jinja2 said, case by case. Files: tests/text/make_chat_golden.py.
void check_cases(const std::string& path, size_t at_least) {
  std::ifstream in(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(in), {}};
  auto root = parse_json(text);
  ASSERT_TRUE(root) << path << ": " << root.error().message;
  const auto& cases = root->find("cases")->items;
  size_t checked = 0;
  for (const Json& c : cases) {
    SCOPED_TRACE(c.find("name")->text);
    const std::string& source = root->find("templates")->items[static_cast<size_t>(*c.find("template")->as_int())].text;
    const Json& variables = root->find("variables")->items[static_cast<size_t>(*c.find("variables")->as_int())];
    auto compiled = ChatTemplate::compile(source);
    Result<std::string> got = compiled ? compiled->render(variables) : std::unexpected(compiled.error());
    ++checked;
    if (const Json* expected = c.find("expected")) {
      EXPECT_TRUE(got) << source.substr(0, 300) << "\n" << got.error().message;
      if (got) EXPECT_EQ(*got, expected->text) << source.substr(0, 300);
    } else {
      EXPECT_FALSE(got) << source.substr(0, 300) << "\nshould fail, gave: " << *got;
      if (!got && !c.find("error")->text.empty()) EXPECT_EQ(got.error().message, c.find("error")->text);
    }
  }
  EXPECT_GE(checked, at_least);
}

TEST(ChatTemplate, RendersWhatJinjaRenders) { check_cases(BATON_SOURCE_DIR "/tests/golden/chat_templates.json", 200); }

TEST(ChatTemplate, RendersRealTemplatesAsJinjaDoes) {
  const char* path = std::getenv("BATON_CHAT_CASES");
  if (path == nullptr || *path == '\0')
    GTEST_SKIP() << "set BATON_CHAT_CASES to a file written by make_chat_golden.py --real (./test does)";
  check_cases(path, 1000);
}

TEST(ChatTemplate, ContentFormatIsReadFromTheTemplate) {
  auto wants = [](std::string_view source) { return ChatTemplate::compile(source)->wants_content_parts(); };
  EXPECT_FALSE(wants("{% for m in messages %}{{ m.content }}{% endfor %}"));
  EXPECT_TRUE(wants("{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}"));
  EXPECT_TRUE(
      wants("{% for m in messages %}{% if m.content is string %}{% else %}{% for p in m['content'] %}{% endfor %}{% endif %}{% "
            "endfor %}"));
  EXPECT_TRUE(wants("{% for m in messages %}{% set c = m['content'] %}{% for p in c %}{{ p }}{% endfor %}{% endfor %}"));
}

TEST(ChatTemplate, RaiseExceptionIsPassedOnWordForWord) {
  auto r = render("x\n{% if true %}{{ raise_exception('Only user and \"assistant\"!') }}{% endif %}");
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, Code::kInvalidArgument);
  EXPECT_EQ(r.error().message, "Only user and \"assistant\"!");
}

TEST(ChatTemplate, ErrorsNameTheLineAndTheThing) {
  EXPECT_EQ(render("\n\n{{ x.y }}").error().message, "line 3: 'x' is undefined");
  EXPECT_EQ(render("a\n{% for i in [1] %}\n{{ i|nosuch }}\n{% endfor %}").error().message,
            "line 3: filter \"nosuch\" is not supported in chat templates");
  EXPECT_EQ(render("a\n{% include 'x' %}").error().message,
            "chat template: line 2: tag {% include %} is not supported in chat templates");
  EXPECT_EQ(ChatTemplate::compile("\xff").error().message, "chat template is not valid UTF-8");
}

// A template or a request that tries to take the server down gets an error, soon.
TEST(ChatTemplate, HostileTemplatesHitALimit) {
  const std::string_view cases[] = {
      "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",                              // steps
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",                                                             // recursion
      "{% for a in range(99999) %}{{ 'x' * 100000 }}{% endfor %}",                                                   // output
      "{{ 'x' * 99999999999 }}",                                                                                     // one text
      "{{ ['x' * 1000] * 99999999999 }}",                                                                            // one list
      "{{ range(999999999)|list }}",                                                                                 //
      "{{ [1]|tojson(indent=99999999) }}",                                                                           //
      "{% set ns = namespace(x=[1]) %}{% for i in range(64) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",  // 2^64 by
                                                                                                                     // sharing
      "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",       // nesting
      "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x.replace('', ns.x) %}{% endfor %}",
      "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
      "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x]|join(ns.x) %}{% endfor %}",
      "{{ 2 ** 99999999 }}",
      "{{ -9223372036854775807 - 2 }}",
      "{{ 'x'|indent(99999999) }}",
  };
  for (std::string_view source : cases) {
    auto r = render(source);
    EXPECT_FALSE(r) << source;
    if (!r) EXPECT_FALSE(r.error().message.empty());
  }
}

TEST(ChatTemplate, HostileSourcesDoNotOverflowTheStack) {
  for (std::string_view open : {"(", "[", "{1:", "-", "not ", "a.b(", "x|f("}) {
    std::string source = "{{ ";
    for (int i = 0; i < 100'000; ++i) source += open;
    EXPECT_FALSE(ChatTemplate::compile(source)) << open;
  }
  std::string sum = "{{ 1", blocks;
  for (int i = 0; i < 100'000; ++i) sum += "+1", blocks += "{% if 1 %}";
  EXPECT_FALSE(ChatTemplate::compile(sum + "}}"));
  EXPECT_FALSE(ChatTemplate::compile(blocks));
  EXPECT_FALSE(ChatTemplate::compile(std::string(kTemplateBytesMax + 1, 'x')));
}

TEST(ChatTemplate, NamespaceHoldingItselfIsFreed) {  // by LeakSanitizer's judgement
  EXPECT_EQ(*render("{% set a = namespace() %}{% set a.self = a %}{% set a.list = [a] %}{{ a.self.self == a }}"), "True");
}

TEST(ChatTemplate, LongTextAndManyMessages) {
  std::string long_text(5'000'000, 'x');
  std::string variables = R"({"messages": [)";
  for (int i = 0; i < 2000; ++i) variables += R"({"role": "user", "content": "hello"},)";
  variables += R"({"role": "user", "content": ")" + long_text + R"("}]})";
  auto r = render("{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] | trim + '\n' }}{% endfor %}", variables);
  ASSERT_TRUE(r) << r.error().message;
  EXPECT_EQ(r->size(), 2001u * 7 + 2000 * 5 + long_text.size());
}

TEST(ChatTemplate, IsSharedByThreads) {
  auto t = ChatTemplate::compile("{% macro f(x) %}<{{ x }}>{% endmacro %}{% for m in messages %}{{ f(m.content) }}{% endfor %}");
  ASSERT_TRUE(t);
  std::vector<std::jthread> threads;
  for (int k = 0; k < 4; ++k) {
    threads.emplace_back([&, k] {
      auto json = parse_json(cat(R"({"messages": [{"content": ")", k, R"("}]})"));
      for (int i = 0; i < 200; ++i) EXPECT_EQ(*t->render(*json), cat("<", k, ">"));
    });
  }
}

}  // namespace
}  // namespace baton::text
