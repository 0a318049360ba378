# frozen_string_literal: true

require 'fluent/event'
require 'fluent/plugin/bridge/librdkafka'
require 'fluent/plugin/bridge/message_headers'

module Fluent
  module Plugin
    module Bridge
      # Event streams made of messages by a parser plugin; each event is a hash here, which costs several times
      # what raw payloads do.
      class ParsedStreams
        # @param parser [Fluent::Plugin::Parser]
        # @param payload_key [String] the field that holds the payload where it cannot be parsed
        # @param fields [Hash{Symbol => String}] as for {RawStreams}
        # @param kafka_time [Boolean] whether an event's time is its message's, not the parser's
        # @param on_error [#call] gets tag, time, record and error for a payload that cannot be parsed
        def initialize(parser, payload_key:, on_error:, fields: {}, kafka_time: false)
          @parser = parser
          @payload_key = payload_key
          @fields = fields
          @kafka_time = kafka_time
          @on_error = on_error
        end

        # @param batch [Batch]
        # @yieldparam topic [String]
        # @yieldreturn [String] the tag
        # @return [Hash{String => Fluent::MultiEventStream}] streams by tag
        def build(batch)
          now = Fluent::EventTime.now
          streams = {}
          batch.each do |topic, partition, offset, payload, length, key, key_length, message|
            tag = yield(topic)
            stream = streams[tag] ||= Fluent::MultiEventStream.new
            extra = extra(topic, partition, offset, text(key, key_length), message)
            milliseconds = Librdkafka.rd_kafka_message_timestamp(message, nil) if @kafka_time
            kafka_time = Fluent::EventTime.new(milliseconds / 1000, milliseconds % 1000 * 1_000_000) if milliseconds&.>=(0)
            parse(text(payload, length)) do |time, record, error|
              if error
                @on_error.call(tag, kafka_time || now, record.merge(extra), error)
              else
                stream.add(kafka_time || time || now, extra.empty? ? record : record.merge(extra))
              end
            end
          end
          streams.reject { |_, stream| stream.empty? }
        end

        private

        def parse(text)
          return yield(nil, { @payload_key => nil }, unparsed('the message has no payload')) if text.nil?

          parsed = false
          @parser.parse(text) do |time, record|
            next if record.nil?

            parsed = true
            yield time, record, nil
          end
          yield nil, { @payload_key => text }, unparsed('the parser made nothing of it') unless parsed
        rescue Fluent::Plugin::Parser::ParserError, ArgumentError, EncodingError => e
          yield nil, { @payload_key => text }, unparsed(e.message)
        end

        def unparsed(reason)
          Fluent::Plugin::Parser::ParserError.new("payload cannot be parsed: #{reason}")
        end

        def text(address, length)
          return nil if address.zero?

          (length.zero? ? +'' : Librdkafka::MEMORY.get_bytes(address - 1, length)).force_encoding(Encoding::UTF_8)
        end

        def extra(topic, partition, offset, key, message)
          @fields.to_h do |field, name|
            value = case field
                    when :key then key
                    when :headers then MessageHeaders.read(message)
                    when :topic then topic
                    when :partition then partition
                    when :offset then offset
                    when :timestamp then Librdkafka.rd_kafka_message_timestamp(message, nil)
                    end
            [name, value]
          end
        end
      end
    end
  end
end
