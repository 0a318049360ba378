# frozen_string_literal: true

require 'fluent/plugin/bridge/librdkafka'

# KafkaError
# └── DeliveryFailed   messages that were produced and have not all been delivered
module Fluent
  module Plugin
    module Bridge
      # What librdkafka or a broker refused, with what the user can do about it.
      class KafkaError < StandardError
        HINTS = {
          Librdkafka::ERR__ALL_BROKERS_DOWN => 'check `brokers`, and that they can be reached from here',
          Librdkafka::ERR__TRANSPORT => 'check `brokers`, and that they can be reached from here',
          Librdkafka::ERR__TIMED_OUT => 'check `brokers`, and that they can be reached from here',
          Librdkafka::ERR__MSG_TIMED_OUT => 'check that the brokers can be reached and have enough in-sync replicas',
          Librdkafka::ERR__RESOLVE => 'check the host names in `brokers`',
          Librdkafka::ERR__SSL => 'check `ssl_ca_cert` and the client certificate, and that this port speaks TLS',
          Librdkafka::ERR__AUTHENTICATION => 'check `username`, `password` and the SASL mechanism',
          Librdkafka::ERR_SASL_AUTHENTICATION_FAILED => 'check `username`, `password` and the SASL mechanism',
          Librdkafka::ERR_UNKNOWN_TOPIC_OR_PART => 'create the topic, or allow the brokers to create it (auto.create.topics.enable)',
          Librdkafka::ERR_TOPIC_AUTHORIZATION_FAILED => "give this client's user the right to write to the topic",
          Librdkafka::ERR_GROUP_AUTHORIZATION_FAILED => "give this client's user the right to read in the group",
          Librdkafka::ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED => "give this client's user the right to write with the transactional id",
          Librdkafka::ERR_MSG_SIZE_TOO_LARGE => "raise the topic's max.message.bytes and the client's message.max.bytes, or send less",
          Librdkafka::ERR_FENCED_INSTANCE_ID => 'another member has the same id: give each replica its own `group_instance_id`',
          Librdkafka::ERR_UNRELEASED_INSTANCE_ID => 'another member has the same id: give each replica its own `group_instance_id`',
          Librdkafka::ERR_INVALID_TRANSACTION_TIMEOUT => "set it below the broker's transaction.max.timeout.ms",
          Librdkafka::ERR_INVALID_RECORD => 'a compacted topic takes no message without a key',
          **[Librdkafka::ERR__FENCED, Librdkafka::ERR_INVALID_PRODUCER_EPOCH, Librdkafka::ERR_PRODUCER_FENCED].to_h do |code|
            [code, 'another producer with the same transactional.id took over: give each replica its own `transactional_id`']
          end
        }.freeze
        TOPIC_ERRORS = [
          Librdkafka::ERR_UNKNOWN_TOPIC_OR_PART, Librdkafka::ERR__UNKNOWN_TOPIC, Librdkafka::ERR_INVALID_TOPIC_EXCEPTION,
          Librdkafka::ERR_TOPIC_AUTHORIZATION_FAILED
        ].freeze
        AUTHENTICATION = [Librdkafka::ERR__AUTHENTICATION, Librdkafka::ERR_SASL_AUTHENTICATION_FAILED].freeze
        private_constant :HINTS, :TOPIC_ERRORS, :AUTHENTICATION

        # Takes what a function of librdkafka returned.
        #
        # @param pointer [FFI::Pointer] a rd_kafka_error_t, which is destroyed, or null
        # @param doing [String] what was tried, for the message
        # @return [KafkaError, nil]
        def self.take(pointer, doing)
          return if pointer.null?

          new(doing, Librdkafka.rd_kafka_error_code(pointer), Librdkafka.rd_kafka_error_string(pointer),
              fatal: Librdkafka.rd_kafka_error_is_fatal(pointer) == 1,
              retriable: Librdkafka.rd_kafka_error_is_retriable(pointer) == 1,
              requires_abort: Librdkafka.rd_kafka_error_txn_requires_abort(pointer) == 1)
        ensure
          Librdkafka.rd_kafka_error_destroy(pointer) unless pointer.null?
        end

        # @param result [Integer, FFI::Pointer] a rd_kafka_resp_err_t, or a rd_kafka_error_t, which is destroyed
        # @param doing [String] what was tried, for the message
        # @raise [KafkaError] it is an error
        def self.check(result, doing = 'Kafka client')
          error = result.is_a?(Integer) ? (new(doing, result) unless result.zero?) : take(result, doing)
          raise error if error
        end

        # @return [Integer] a rd_kafka_resp_err_t: negative ones are the client's, positive ones a broker's
        attr_reader :code
        # @return [String] the code's name, as in `_FENCED`
        attr_reader :name

        # @param doing [String] what was tried and where, as in `Kafka topic ads`
        # @param code [Integer] a rd_kafka_resp_err_t
        # @param text [String] what librdkafka says about it
        # @param fatal [Boolean] whether the client can do nothing any more
        # @param retriable [Boolean] whether the same call may succeed later
        # @param requires_abort [Boolean] whether the transaction must be aborted
        def initialize(doing, code, text = Librdkafka.rd_kafka_err2str(code), fatal: false, retriable: false, requires_abort: false)
          @code = code
          @name = Librdkafka.rd_kafka_err2name(code)
          @fatal = fatal
          @retriable = retriable
          @requires_abort = requires_abort
          super([doing, "#{text} (#{@name})", HINTS[code]].compact.join(': '))
        end

        # @return [Boolean] whether its producer or consumer can do nothing any more and must be closed
        def fatal?
          @fatal
        end

        # @return [Boolean] whether the same call may succeed later
        def retriable?
          @retriable
        end

        # @return [Boolean] whether the transaction must be aborted and done again
        def requires_abort?
          @requires_abort
        end

        # @return [Boolean] whether the topic does not exist, cannot exist, or may not be written
        def topic?
          TOPIC_ERRORS.include?(@code)
        end

        # @return [Boolean] whether the brokers do not know this user with this password
        def authentication?
          AUTHENTICATION.include?(@code)
        end
      end

      # Messages that were produced and have not all been delivered.
      class DeliveryFailed < KafkaError
        # A message that its broker will never take.
        Refused = Struct.new(:topic, :index, :code)

        # @return [Array<Refused>] messages that no broker will take, whenever they come again
        attr_reader :refused

        # @param counts [Hash{Array(String, Integer) => Integer}] messages for each topic and code
        # @param refused [Array<Refused>] those that will never be taken
        # @param waiting [Integer] messages that are still on their way
        # @param reason [String, nil] what the client reported last
        # @param transactional [Boolean] whether they belonged to a transaction
        def initialize(counts, refused:, waiting: 0, reason: nil, transactional: false)
          @refused = refused
          # With nothing waiting and nothing failed for another reason, all others have been delivered.
          @others = waiting.positive? || counts.values.sum > refused.size
          parts = counts.map { |(topic, code), count| "#{count} of topic #{topic}: #{Librdkafka.rd_kafka_err2str(code)}" }
          parts << "#{waiting} not answered in time" if waiting.positive?
          parts << "the client's last error: #{reason}" if reason
          code = counts.empty? ? Librdkafka::ERR__TIMED_OUT : counts.keys.first.last
          super('Kafka messages were not delivered', code, parts.join('; '), requires_abort: transactional)
        end

        # @return [Boolean] whether all messages but the refused ones have been delivered
        def refused_only?
          !@others
        end
      end
    end
  end
end
