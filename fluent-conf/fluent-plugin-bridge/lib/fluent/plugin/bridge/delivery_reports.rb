# frozen_string_literal: true

require 'fluent/plugin/bridge/kafka_error'
require 'fluent/plugin/bridge/message_headers'
require 'fluent/plugin/bridge/messages'

module Fluent
  module Plugin
    module Bridge
      # What became of messages that were not delivered, and what is to be done about them.
      #
      # Brokers answer for a batch of messages (one request, one partition), and librdkafka reports a
      # batch in one event. So a message is known to be refused for its own sake only if it stood
      # alone, or if others of its batch are reported as refused for the sake of another. Where that is
      # open, the batch is sent again in halves. In a transaction that is not possible, because the
      # failure has ended it: there the next attempt leaves out what is known, and sends the halves.
      class DeliveryReports
        # What a broker refuses a message for, however often it comes, and with it its whole batch.
        REFUSALS = [Librdkafka::ERR_MSG_SIZE_TOO_LARGE, Librdkafka::ERR_INVALID_RECORD, Librdkafka::ERR_INVALID_TIMESTAMP].freeze
        PURGED = [Librdkafka::ERR__PURGE_QUEUE, Librdkafka::ERR__PURGE_INFLIGHT].freeze
        CODE = 0
        TOPIC = 8
        PARTITION = 16
        PAYLOAD = 24
        KEY = 40
        INDEX = 64
        private_constant :REFUSALS, :PURGED, :CODE, :TOPIC, :PARTITION, :PAYLOAD, :KEY, :INDEX

        # @return [Array<Array(String, Messages)>] topics and messages to be sent again
        attr_reader :again

        # @param log [Fluent::Log]
        # @param transactional [Boolean] whether messages belong to transactions
        def initialize(log, transactional:)
          @log = log
          @transactional = transactional
          @again = []
          @counts = Hash.new(0)
          @refused = []
          @known = {}
          @limits = {} # for good, by what the topic takes
          @search = {} # until the message is found that its batch is refused for
        end

        # @param event [FFI::Pointer] an event of type EVENT_DR: messages of one batch
        # @return [Array<String>] topics that messages failed for the sake of
        def take(event)
          batch = []
          until (message = Librdkafka.rd_kafka_event_message_next(event)).null?
            code = message.get_int32(CODE)
            batch << [message, code] unless PURGED.include?(code)
          end
          return [] if batch.empty?

          topic = Librdkafka.rd_kafka_topic_name(batch.first.first.get_pointer(TOPIC))
          named = batch.size == 1 || batch.any? { |_, code| code == Librdkafka::ERR__INVALID_DIFFERENT_RECORD }
          open = Messages.new
          batch.each { |reported, code| sort(topic, reported, code, named, open) }
          resend(topic, open, named, batch.first.last) unless open.empty?
          batch.any? { |_, code| KafkaError.new(topic, code).topic? } ? [topic] : []
        end

        # @return [DeliveryFailed, nil] what has failed since the last call
        def failure(waiting: 0, reason: nil)
          return if @counts.empty? && waiting.zero?

          DeliveryFailed.new(@counts, refused: @refused, waiting: waiting, reason: reason, transactional: @transactional)
        ensure
          clear
        end

        # Forgets what has failed, but not what is known about messages.
        def clear
          @again = []
          @counts = Hash.new(0)
          @refused = []
        end

        # Forgets the messages that were refused: the events that they were made of are done.
        def done
          @known.clear
          @search.clear
        end

        # @param topic [String]
        # @param messages [Messages]
        # @return [Hash{Integer => Integer}] positions of messages that a broker has refused, and its codes
        def known(topic, messages)
          known = @known[topic]
          return {} unless known

          (0...messages.size).to_h { |position| [position, known[messages.digest(position)]] }.compact
        end

        # @param topic [String]
        # @return [Integer, nil] bytes that may be on their way at once, so that no batch is larger
        def limit(topic)
          [@limits[topic], @search[topic]].compact.min
        end

        private

        def sort(topic, message, code, named, open)
          if REFUSALS.include?(code) && named
            refuse(topic, message, code)
          elsif REFUSALS.include?(code) || code == Librdkafka::ERR__INVALID_DIFFERENT_RECORD
            copy(message, open)
            @counts[[topic, code]] += 1 if @transactional
          else
            @counts[[topic, code]] += 1
          end
        end

        def refuse(topic, message, code)
          @counts[[topic, code]] += 1
          @refused << DeliveryFailed::Refused.new(topic, message.get_uint64(INDEX), code)
          (@known[topic] ||= {})[Messages.digest(bytes(message, KEY), bytes(message, PAYLOAD))] = code
        end

        def resend(topic, messages, named, code)
          halve(topic, messages, code) unless named
          @again << [topic, messages] unless @transactional
        end

        def halve(topic, messages, code)
          size = (0...messages.size).sum { |position| messages.bytes_of(position) }
          if code == Librdkafka::ERR_MSG_SIZE_TOO_LARGE
            warn_of_size(topic, size) unless @limits.key?(topic)
            @limits[topic] = [size / 2, @limits[topic]].compact.min
          else
            @search[topic] = [size / 2, @search[topic]].compact.min
          end
        end

        def warn_of_size(topic, size)
          @log.warn("Kafka topic #{topic} takes no batch of #{size} bytes: it comes in smaller ones from now on. " \
                    "To avoid that, set batch.size in rdkafka_options below the topic's max.message.bytes")
        end

        def copy(message, messages)
          messages.add(bytes(message, PAYLOAD), bytes(message, KEY), message.get_uint64(INDEX),
                       partition: message.get_int32(PARTITION),
                       timestamp: Librdkafka.rd_kafka_message_timestamp(message.address, nil), headers: headers(message))
        end

        def bytes(message, at)
          address = message.get_pointer(at)
          address.get_bytes(0, message.get_uint64(at + 8)) unless address.null?
        end

        def headers(message)
          headers = MessageHeaders.read(message.address)
          headers unless headers.empty?
        end
      end
    end
  end
end
