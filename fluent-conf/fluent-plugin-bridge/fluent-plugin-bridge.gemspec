# frozen_string_literal: true

require_relative 'lib/fluent/plugin/bridge/version'

Gem::Specification.new do |spec|
  spec.name = 'fluent-plugin-bridge'
  spec.version = Fluent::Plugin::Bridge::VERSION
  spec.authors = ['fluent-bridge maintainers']
  spec.license = 'Apache-2.0'
  spec.summary = 'Python filters inside any Fluentd pipeline, and Kafka to Kafka exactly once'
  spec.description = <<~TEXT
    Hands batches of events to the fluent-bridge sidecar, whose workers run the user's Python functions on every core: as a
    filter inside any pipeline or as a buffered output. Reads from Kafka and writes to Kafka in one transaction.
  TEXT
  spec.homepage = 'https://pypi.org/project/fluent-bridge/'
  spec.metadata = { 'rubygems_mfa_required' => 'true' }
  spec.required_ruby_version = '>= 3.2' # what Fluentd 1.19 and later ask for

  # Named here, not asked of git: a gem is also built from a source archive.
  spec.files = Dir.glob('lib/**/*.rb', base: __dir__) + %w[LICENSE README.md]
  spec.require_paths = ['lib']

  spec.add_dependency 'fluentd', '>= 1.18', '< 2'
  spec.add_dependency 'google-protobuf', '>= 4.26', '< 5'
  spec.add_dependency 'grpc', '>= 1.65', '< 2'
  spec.add_dependency 'rdkafka', '>= 0.19', '< 1'
end
