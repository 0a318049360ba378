# frozen_string_literal: true

require 'fluent/config/error'
require 'fluent/plugin/filter'
require 'fluent/plugin/multi_output'
require 'fluent/plugin/output'

module Fluent
  module Plugin
    module Bridge
      # What an input's events can run into, as far as the configuration tells.
      class Pipeline
        # Types that have a router for error events alone; any other output that has one emits what it takes once more.
        ENDS = %w[bridge_kafka].freeze
        private_constant :ENDS

        # @param router [Fluent::EventRouter] the input's
        # @param tags [Array<String>] the tags that the input gives, as far as they are known
        # @param all_known [Boolean] whether it gives no others
        # @param label [String, nil] whose router that is, where everything is the pipeline's
        def initialize(router, tags, all_known:, label: nil)
          rules = rules_of(router)
          # The router of a test driver has none.
          @unmatched = rules ? tags.reject { |tag| output_for(tag, rules) } : []
          @label = label
          outputs = if label || !all_known || retagged?(tags, rules || [])
                      (rules || []).map(&:collector)
                    else
                      tags.flat_map { |tag| [tag, "error.#{tag}"] }.filter_map { |tag| output_for(tag, rules || []) }
                    end
          visited = []
          @outputs = outputs.flat_map { |output| outputs_of(output, visited) }
        end

        # Refuses what would lose events, or cannot be committed together with offsets.
        #
        # @param exactly_once [Boolean]
        # @param brokers [String] the input's
        # @raise [Fluent::ConfigError]
        def check(exactly_once:, brokers:)
          unless @unmatched.empty?
            raise Fluent::ConfigError,
                  "no <match> #{"in <label #{@label}> " if @label}takes the tag #{@unmatched.join(', ')}: Fluentd would drop the events, " \
                  'and their offsets would be committed; add one (`<match **>` takes every tag), or change `tag`'
          end
          @outputs.each do |output|
            check_buffer(output) if exactly_once
            check_brokers(output, brokers)
          end
        end

        # @return [Array<String>] names of the outputs that keep events in memory after they have taken them
        def memory_buffered
          @outputs.select { |output| buffered?(output) && !output.buffer&.persistent? }.map { |output| name_of(output) }
        end

        private

        # How the user knows it.
        def name_of(output)
          type = output.config['@type']
          output.plugin_id_configured? ? "#{type} (#{output.plugin_id})" : type
        end

        # A router has no reader for them.
        def rules_of(router)
          router.instance_variable_get(:@match_rules)
        end

        # Python functions may give events any tag.
        def retagged?(tags, rules)
          rules.any? do |rule|
            rule.collector.is_a?(Filter) && rule.collector.config['@type'] == 'bridge' && tags.any? { |tag| rule.match?(tag) }
          end
        end

        # The first that matches takes the events (event_router.rb, find); filters are among the rules.
        def output_for(tag, rules)
          rules.find { |rule| !rule.collector.is_a?(Filter) && rule.match?(tag) }&.collector
        end

        def outputs_of(collector, visited)
          return [] if collector.is_a?(Filter) || visited.include?(collector)

          visited << collector
          further = if collector.is_a?(MultiOutput) then collector.outputs
                    elsif emits?(collector) then (rules_of(collector.router) || []).map(&:collector)
                    else []
                    end
          [collector, *further.flat_map { |output| outputs_of(output, visited) }]
        end

        # As relabel and rewrite_tag_filter do, under whatever tag.
        def emits?(output)
          output.has_router? && !buffered?(output) && !ENDS.include?(output.config['@type'])
        end

        # nil is: to be decided when it starts (output.rb, configure and start).
        def buffered?(output)
          return false if output.is_a?(MultiOutput)

          buffering = output.instance_variable_get(:@buffering)
          buffering.nil? ? output.prefer_buffered_processing : buffering
        end

        def check_buffer(output)
          return unless buffered?(output)

          raise Fluent::ConfigError,
                "delivery exactly_once cannot go through a buffer, and #{name_of(output)}#{" in <label #{@label}>" if @label} has one: " \
                'offsets would be committed ' \
                'while events wait in it; take its <buffer> out (of the outputs to Kafka, use `@type bridge_kafka`), ' \
                'give this input a @label without that output, or use `delivery at_least_once`'
        end

        def check_brokers(output, brokers)
          return unless output.config['@type'] == 'bridge_kafka' && !buffered?(output)

          theirs = output.config['brokers']
          return if theirs.nil? || theirs == brokers

          raise Fluent::ConfigError,
                "#{name_of(output)} has the brokers #{theirs}, but without <buffer> it produces with the client of " \
                "the input, whose brokers are #{brokers}: take `brokers` out there, or give it a <buffer> and this input " \
                '`delivery at_least_once`'
        end
      end
    end
  end
end
