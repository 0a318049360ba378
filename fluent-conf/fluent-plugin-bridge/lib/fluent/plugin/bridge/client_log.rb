# frozen_string_literal: true

require 'fluent/plugin/bridge/kafka_error'

module Fluent
  module Plugin
    module Bridge
      # What a Kafka client reports by itself, in Fluentd's log: each thing once in a while, however
      # often librdkafka says it.
      class ClientLog
        # Seconds for which the same report is not written again.
        INTERVAL = 60
        # Different reports that are remembered at most.
        KEPT = 100
        # Syslog's levels, which librdkafka uses: 4 is a warning, 5 a notice, 7 debugging.
        WARNING = 4
        NOTICE = 5
        DEBUGGING = 7
        # Lines about what is reported as an error, or returned by a call, as well.
        SAID = %w[FAIL ERROR FATAL TXNERR GETPID ADDPARTS ADDOFFSETS].freeze
        # rdkafka_options are for all clients, whatever each of them makes of them.
        FOR_THE_OTHER_KIND = /is a (?:consumer|producer) property and will be ignored/
        private_constant :FOR_THE_OTHER_KIND, :SAID, :INTERVAL, :KEPT, :WARNING, :NOTICE, :DEBUGGING

        # @return [KafkaError, nil] the last error that was reported
        attr_reader :last_error

        # @param log [Fluent::Log] the plugin's log
        # @param name [String] which client, as in `group ads`
        # @param options [Hash{String => Object}] its settings
        def initialize(log, name, options)
          @log = log
          @name = "Kafka #{name} at #{options['bootstrap.servers']}"
          @written = {}
          @last_error = nil
        end

        # @param handle [FFI::Pointer] the client, a rd_kafka_t whose setting log.queue is true
        def attach(handle)
          @queue = Librdkafka.rd_kafka_queue_new(handle)
          Librdkafka.rd_kafka_set_log_queue(handle, @queue)
        end

        # Writes what librdkafka has logged.
        def serve
          until (event = Librdkafka.rd_kafka_queue_poll(@queue, 0)).null?
            line(event) if Librdkafka.rd_kafka_event_type(event) == Librdkafka::EVENT_LOG
            Librdkafka.rd_kafka_event_destroy(event)
          end
        end

        # Writes an error.
        #
        # @param code [Integer] a rd_kafka_resp_err_t
        # @param text [String] what librdkafka says about it
        # @param fatal [Boolean] whether the client can do nothing any more
        def report(code, text, fatal: false)
          # What keeps it from the brokers has been said before.
          return if @last_error && code == Librdkafka::ERR__ALL_BROKERS_DOWN

          @last_error = KafkaError.new(@name, code, text, fatal: fatal)
          once(@last_error.topic? ? text : code) { fatal ? @log.error(@last_error.message) : @log.warn(@last_error.message) }
        end

        # Forgets the last error, before something is tried.
        def forget
          @last_error = nil
        end

        # Gives the queue back; before the client is destroyed.
        def close
          Librdkafka.rd_kafka_queue_destroy(@queue) if @queue
          @queue = nil
        end

        private

        def line(event)
          facility, text, level = Array.new(3) { FFI::MemoryPointer.new(:pointer) }
          return unless Librdkafka.rd_kafka_event_log(event, facility, text, level).zero?

          write(facility.read_pointer.read_string, text.read_pointer.read_string, level.read_int)
        end

        def write(facility, text, level)
          line = "#{@name}: #{facility}: #{text}"
          return @log.debug(line) if level >= DEBUGGING || SAID.include?(facility) || text.match?(FOR_THE_OTHER_KIND)

          once(line.gsub(/\d+/, '')) do
            if level <= WARNING then @log.warn(line)
            elsif level == NOTICE then @log.info(line)
            else @log.debug(line)
            end
          end
        end

        def once(key)
          now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
          return if @written[key]&.>(now - INTERVAL)

          @written.shift if @written.size >= KEPT
          @written[key] = now
          yield
        end
      end
    end
  end
end
