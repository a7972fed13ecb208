#include "deploy/render.h"

#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <cstdlib>
#include <filesystem>

#include "base/file.h"
#include "base/json.h"
#include "deploy/limits.h"
#include "deploy/plan_command.h"
#include "deploy/plan_view.h"
#include "deploy/tool.h"
#include "deploy/values.h"

namespace baton::deploy {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view kGuide = "guides/pd-disaggregation";
constexpr const char* kVariables[] = {"RELEASE_NAME_POSTFIX", "IMAGE_REGISTRY", "SERVICE_TYPE", "HTTP_ROUTE", "USE_HOST_NETWORK"};
constexpr std::string_view kApis[] = {"telemetry.istio.io/v1",          "networking.istio.io/v1",
                                      "monitoring.coreos.com/v1",       "gateway.networking.k8s.io/v1",
                                      "inference.networking.k8s.io/v1", "inference.networking.x-k8s.io/v1alpha2"};

Result<> put_file(const std::string& path, std::string_view text) {  // and its folder
  std::error_code error;
  fs::create_directories(fs::path(path).parent_path(), error);
  return write_file(path, text);
}

class Scratch {  // a folder that goes with us
 public:
  Scratch() {
    std::string name = (fs::temp_directory_path() / "baton-deploy-XXXXXX").string();
    if (::mkdtemp(name.data()) != nullptr) path_ = name;
  }
  ~Scratch() {
    std::error_code error;
    if (!path_.empty()) fs::remove_all(path_, error);
  }
  Scratch(const Scratch&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

Result<std::string> find_root(const std::string& said) {
  std::error_code error;
  std::vector<fs::path> starts;
  if (!said.empty()) {
    starts.push_back(said);
  } else {
    starts = {fs::current_path(error), fs::read_symlink("/proc/self/exe", error).parent_path()};
  }
  for (fs::path at : starts) {
    for (int up = 0; up < (said.empty() ? 16 : 1) && !at.empty(); ++up, at = at.parent_path()) {
      if (fs::exists(at / kGuide / "helmfile.yaml.gotmpl", error)) return at.string();
      if (at == at.root_path()) break;
    }
  }
  return fail(Code::kNotFound, "no ", kGuide, " here: run it in a clone of this repository, or say --root FOLDER");
}

// A part of the helmfile as text, its template resolved by helm.
Result<std::string> resolved(const std::string& part, const std::string& values, const std::string& helm,
                             const Scratch& scratch) {
  const std::string chart = scratch.path() + "/helmfile";
  BATON_OK(put_file(chart + "/Chart.yaml", "{apiVersion: v2, name: helmfile, version: 0.0.1}\n"));
  BATON_OK(put_file(chart + "/values.yaml", values));
  BATON_OK(put_file(chart + "/templates/_body.tpl", cat("{{- define \"body\" -}}\n", part, "\n{{- end -}}")));
  BATON_OK(
      put_file(chart + "/templates/c.yaml",
                 "kind: ConfigMap\napiVersion: v1\nmetadata: {name: body}\ndata:\n  body: {{ include \"body\" . | toJson }}\n"));
  BATON_TRY(const std::string text, run_tool({helm, "template", "h", chart}, kHelmMs, kHelmBytesMax));
  BATON_TRY(const YAML::Node map, parse_yaml(text));
  return map["data"]["body"].as<std::string>("");
}

std::string variables_json(const std::map<std::string, std::string>& variables, const RenderCommand& c,
                           const YAML::Node& environment) {
  std::string out = yaml_text(environment);
  JsonWriter w;
  w.object();
  for (const auto& [name, value] : variables) w.field(name, value);
  w.end();
  return out +
         cat("env_: ", w.text(), "\nnamespace_: ", json_string(c.ns), "\nenvironment_: ", json_string(c.ask.environment), "\n");
}

std::map<std::string, std::string> variables_of(const Plan& plan) {
  std::map<std::string, std::string> out;
  for (const char* name : kVariables) {
    if (const char* value = std::getenv(name); value != nullptr) out[name] = value;
  }
  if (plan.ask.gateway != plan.environment->gateway) out["GATEWAY"] = plan.ask.gateway;
  if (plan.ask.rdma == "no") out["RDMA_RESOURCE"] = "none";
  if (plan.ask.rdma == "yes" && !plan.environment->rdma) out["RDMA_RESOURCE"] = "rdma/ib";
  if (const char* value = std::getenv("RDMA_RESOURCE"); value != nullptr && plan.ask.rdma != "no") out["RDMA_RESOURCE"] = value;
  return out;
}

// As the guide's helmfile reads it.
bool host_network() {
  const char* value = std::getenv("USE_HOST_NETWORK");
  const std::string_view text = value == nullptr ? "no" : value;
  return text != "" && text != "no" && text != "false" && text != "0" && text != "off";
}

std::string base_values(const Plan& plan, const std::string& root) {
  const bool host = plan.environment->accelerator == "amd" && host_network();
  return cat(root, "/", kGuide, "/ms-pd/", host ? "values_amd_host_network.yaml" : plan.environment->values);
}

Result<std::string> manifests(const RenderCommand& c, const std::string& helm, const Release& release, const Scratch& scratch) {
  std::vector<std::string> argv = {helm, "template", release.name, release.chart, "-n", c.ns, "--kube-version", c.kube_version};
  if (c.apis == "all" || (c.apis == "auto" && c.ask.environment != "kind")) {
    for (const std::string_view api : kApis) argv.insert(argv.end(), {"--api-versions", std::string(api)});
  }
  for (size_t i = 0; i < release.values.size(); ++i) {
    const std::string file = cat(scratch.path(), "/", release.name, "-", i, ".yaml");
    BATON_OK(put_file(file, release.values[i]));
    argv.insert(argv.end(), {"-f", file});
  }
  return run_tool(argv, kHelmMs, kHelmBytesMax);
}

std::string install_lines(const RenderCommand& c, const Plan& plan, const std::string& values,
                          const std::map<std::string, std::string>& variables) {
  std::string before;
  for (const auto& [name, value] : variables) before += cat(name, "=", value, " ");
  return cat("  ", before, "PLAN_VALUES=", fs::absolute(values).string(), " helmfile apply -e ", plan.ask.environment, " -n ",
             c.ns, "      (in ", kGuide, ")\n");
}

}  // namespace

std::string as_chart_template(std::string_view text) {
  static constexpr std::pair<std::string_view, std::string_view> kNames[] = {{".Namespace", "$.Values.namespace_"},
                                                                             {".Environment.Name", "$.Values.environment_"}};
  std::string out;
  const auto word = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'; };
  for (size_t at = 0; at < text.size();) {
    const std::string_view rest = text.substr(at);
    const size_t close = rest.starts_with("env \"") ? rest.find('"', 5) : rest.npos;
    if (close != rest.npos && (at == 0 || !word(text[at - 1]))) {
      out += cat("(index $.Values.env_ ", rest.substr(4, close - 3), " | default \"\")");
      at += close + 1;
      continue;
    }
    const auto* name = std::ranges::find_if(kNames, [&](const auto& row) { return rest.starts_with(row.first); });
    if (name != std::end(kNames)) {
      out += name->second;
      at += name->first.size();
      continue;
    }
    out += text[at++];
  }
  return out;
}

Result<std::vector<Release>> releases_of(const RenderCommand& c, const std::string& helm,
                                         const std::map<std::string, std::string>& variables) {
  const std::string guide = cat(c.root, "/", kGuide);
  BATON_TRY(const std::string whole, read_file(guide + "/helmfile.yaml.gotmpl", kValuesBytesMax));
  const size_t split = whole.find("\n---");
  if (split == whole.npos) return fail(Code::kInvalidArgument, "the helmfile has not two parts");
  Scratch scratch;
  BATON_TRY(const std::string head, resolved(as_chart_template(std::string_view(whole).substr(0, split)),
                                             variables_json(variables, c, YAML::Node(YAML::NodeType::Map)), helm, scratch));
  BATON_TRY(const YAML::Node environments, parse_yaml(head));
  std::vector<Release> out;
  try {
    const YAML::Node environment = environments["environments"][c.ask.environment]["values"][0];
    if (!environment.IsMap()) return fail(Code::kNotFound, "the helmfile has no environment ", c.ask.environment);
    BATON_TRY(const std::string body, resolved(as_chart_template(std::string_view(whole).substr(split + 4)),
                                               variables_json(variables, c, environment), helm, scratch));
    BATON_TRY(const YAML::Node state, parse_yaml(body));
    for (const auto& r : state["releases"]) {
      Release release{
          r["name"].as<std::string>(), (fs::path(guide) / r["chart"].as<std::string>()).lexically_normal().string(), {}};
      for (const auto& v : r["values"]) {
        if (v.IsScalar()) {
          BATON_TRY(std::string text, read_file((fs::path(guide) / v.Scalar()).string(), kValuesBytesMax));
          release.values.push_back(std::move(text));
        } else {
          release.values.push_back(yaml_text(v));
        }
      }
      out.push_back(std::move(release));
    }
  } catch (const YAML::Exception& e) {
    return fail(Code::kInvalidArgument, "the helmfile: ", e.what());
  }
  return out;
}

Options render_options(RenderCommand& c) {
  Options o("baton deploy render", "a plan as values and manifests, by the guides' charts",
            "baton deploy render -e kind -n baton");
  add_plan_options(o, c.ask);
  o.add("model-uri", &c.model_uri, "where pods find --model, if that is a file here: hf://..., pvc://claim/path, oci://image");
  o.group("Output");
  o.add("namespace", &c.ns, "of the release").alias("n").env("NAMESPACE");
  o.add("out", &c.out, "folder for values.yaml and a file a release");
  o.add("root", &c.root, "clone of this repository; empty = around here, or around this program");
  o.add("helm", &c.helm, "the program").env("HELM");
  o.add("apis", &c.apis, "kinds of Istio, Prometheus and the Gateway API: all, none, or auto (none for kind)",
        {"auto", "all", "none"});
  o.add("kube-version", &c.kube_version, "of the cluster");
  return o;
}

Result<> render(RenderCommand& c) {
  BATON_TRY(c.root, find_root(c.root));
  PlanResult made = plan_for(c.ask);
  if (!made) return fail(Code::kFailedPrecondition, no_plan_text(made.error()));
  c.ask = made->ask;
  if (!c.model_uri.empty()) made->shape.uri = c.model_uri;
  BATON_TRY(const std::string base, read_file(base_values(*made, c.root), kValuesBytesMax));
  BATON_TRY(const std::string overlay, plan_values(*made, base));
  const std::string values = c.out + "/values.yaml";
  const auto variables = variables_of(*made);
  BATON_OK(put_file(
      values, cat("# baton deploy render ", render_flags(*made), "\n# Over ", base_values(*made, "").substr(1), "\n", overlay)));
  std::printf("%s: what the plan changes of %s\n", values.c_str(), base_values(*made, "").substr(1).c_str());
  const std::string helm = find_tool(c.helm);
  if (helm.empty()) {
    std::printf("there is no %s here, so no manifests. To install:\n%s", c.helm.c_str(),
                install_lines(c, *made, values, variables).c_str());
    return {};
  }
  BATON_TRY(std::vector<Release> releases, releases_of(c, helm, variables));
  releases.back().values.push_back(overlay);  // the model servers'
  Scratch scratch;
  for (const Release& release : releases) {
    BATON_TRY(const std::string text, manifests(c, helm, release, scratch));
    const std::string file = cat(c.out, "/", release.name, ".yaml");
    BATON_OK(put_file(file, text));
    std::printf(
        "%s: %zu objects\n", file.c_str(),
        static_cast<size_t>(std::ranges::count(YAML::LoadAll(text), true, [](const YAML::Node& n) { return n.IsMap(); })));
  }
  std::string files;
  for (const Release& release : releases) files += cat(" -f ", c.out, "/", release.name, ".yaml");
  std::printf("to install, either\n%sor\n  kubectl create namespace %s; kubectl apply -n %s%s\nthen: baton deploy verify -n %s\n",
              install_lines(c, *made, values, variables).c_str(), c.ns.c_str(), c.ns.c_str(), files.c_str(), c.ns.c_str());
  return {};
}

}  // namespace baton::deploy
